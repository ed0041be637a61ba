"""Where people and secrets stand in code: one template a row.

A row is its split and a template under the kind of place it is for; ¶ is a line break. «slots» are filled by
`starcoder.pii.plant.fill`; a digit tells people apart («name2», «email2»), and what follows a colon names one shape of
a key. No wording is in both splits, though bare syntax may be; both have rows for every place and label.
"""

from starcoder.pii.plant.table import parse

PLACES = parse("""
[comment]
train «keyvar»: «key»
train old «keyvar» was «key»
train «passvar» = "«password»"
train the «word» account uses «user» and «password»
train FIXME remove before release: «keyvar»=«key»
train curl -H "Authorization: token «key»" https://«host»/«word»
train works with «key» but not with «key»
train su - «user» (pw «password»)
train mongodb://«account»:«urlpassword»@«ip»/«word»
train aws: «key:aws-id» / «key:aws-secret»
train «name», «email», «date»
train «name» («user»)
train Copyright (C) «year» by «name_license» and others
train mount //«ip»/«word» as «user»
test do not commit: «keyvar» «key»
test my «keyvar» is "«key»"
test «passvar»: «password» («user»)
test amqp://«user»:«urlpassword»@«host»:5672/
test if it asks, type «password»
test Authorization: Bearer «key»
test set «KEYVAR» to «key» on the runner
test «hostvar» = «ip»
test «name» <«email»>, «year»-
test git clone https://«key»@«host»/«user»/«word»
train Author: «name» <«email»>
train Author: «name»
train @author «name»
train @author «name» («email»)
train Created by «name» on «date».
train Written by «name», «year»
train Original version by «name»; rewritten by «name2» in «year».
train Contributed by «name» <«email»>
train Maintainer: «email»
train maintainer  : «name» <«email»>
train Thanks to «name» and «name2» for the «word» idea.
train Thanks to @«user» for reporting this.
train TODO(«user»): remove once «word» «version» is out
train TODO(«user»): handle the «word» case
train FIXME(«user») this breaks when «word» is empty
train XXX «name»: why is this needed at all?
train Questions? Ask «name» («email»).
train see https://github.com/«user»/«word»-«word»/issues/«int»
train Based on code from https://github.com/«user»/«word»
train Adapted from «name»'s blog post on «word».
train «date» «name»  initial version
train «date»  «user»  fixed «word» handling
train Signed-off-by: «name» <«email»>
train Reviewed-by: «name» <«email»>
train Run as: ssh «user»@«ip» -p «port»
train the box at «ip» is flaky, use «ip2» for now
train curl -u «account»:«password» https://«host»/api/v1/«word»
train login with «user» / «password» on staging
train tmp: api key is «key»
train export GITHUB_TOKEN=«key:github»
train Translation: «name» <«email»>, «year»
train based on: «name», "A «word» method for «word»s", «year»
train cf. «last» and «last2» («year»), section 3.«digit»
train «cite» and «cite2» «Word» «word». SIAM J. «Word» «digit» («year») «int»
train see «last» («year») for the proof
train «name2»: patch from «name» applied, see bug #«int»
train ping «ip» works, so the router is fine
train path on my machine: /home/«user»/src/«word»
train e.g. /Users/«user»/Library/«Word»/«word».log
train Credits: «name», «name2», «name3»
train mail the result to «email»
train Portions (c) «year» «name_license» <«email_license»>
train Copyright «year» «name_license»
train contact «email» or «email2» for access
train «name» says the limit is «int»
train debug only, «name_example»'s account: «id»
train (see the mail of «name_example», «email_example»)
train @«user_example» is a placeholder
train the password for the demo db is «password»
train cc: «email»; «email2»
train x-amz-id from the trace was «ambiguous», ours?
test Authors: «name», «name2»
test Author:: «name» (mailto:«email»)
test By «name», «date»
test Author «name» - «email»
test Code by «name» (@«user»)
test Copied from a gist of «user»: https://gist.github.com/«user»/«md5»
test Credit goes to «name» for spotting this.
test Credit: @«user»
test todo: [«user»] clean up
test NOTE(«user»): order matters here
test HACK («user») the «word» server wants this twice
test This file is maintained by «name» <«email»>.
test Original author: «name» [«email»]
test Co-authored-by: «name» <«email»>
test Reported-by: «name» <«email»>
test Acked-by: «name» <«email»>
test Last modified by «user» on «date»
test «date» («name») added «word»
test Bugs to «email», please.
test Please send comments to «name» at «email»
test due to «name» («year»); the proof is in «name2»'s thesis
test Implements the scheme of «name» & «name2» [«year»]
test idea stolen from «name»
test psql -h «ip» -U «user» «word»
test tested against «ip» and «ip2» only
test dev server -> «ip»:«port»
test scp build.tgz «user»@«ip»:/srv/«word»
test wget --user=«account» --password=«password» https://«host»/«word».zip
test credentials: «account»:«password»
test old token («key»), revoked?
test use SENDGRID_KEY «key:sendgrid» when testing
test works in /home/«user»/.config/«word» as well
test C:\\Users\\«user»\\AppData\\Local\\«Word»
test asked «name» on the list («email»), no answer yet
test Kudos to «name»!
test as «last» & «last2» do, p. «int»
test from «cite»: «Word» «word». «year»
test by «last»'s lemma
test h/t «user» on the forum
test Special thanks: «name», «name2» and «name3» for testing
test Parts of this are © «name_license», «year»
test (C) «year» by «name_license», «email_license»
test staff no. «id» approves
test assume «name_example» wrote to «email_example»
test like @«user_example» would
test request id was «ambiguous»
[header]
train Copyright (c) «year» «name_license»
train Copyright (C) «year»-«year» «name_license» <«email_license»>
      ¶¶Licensed under the Apache License, Version 2.0 (the "License");
      ¶you may not use this file except in compliance with the License.
train Copyright «year» «name_license». All rights reserved.
      ¶Use of this source code is governed by a BSD-style license.
train «word».«word» - «word» «word» support¶¶Copyright (c) «year», «name_license» («email_license»)
      ¶¶This program is free software: you can redistribute it and/or modify it
      ¶under the terms of the GNU General Public License.
train Author:  «name» <«email»>¶Date:    «date»¶Purpose: «word» «word»
train (c) «year» by «name_license»¶SPDX-License-Identifier: MIT
train Copyright «year» «user_license»¶MIT License
train Created on «date»¶¶@author: «user»
train File: «word»_«word»¶Author: «name»¶Email: «email»¶Github: https://github.com/«user»
train Copyright (c) «year» «name_license», «name_license2» and contributors
train Originally by «name» <«email»>, «year».¶Modified by «name2» <«email2»>
test Copyright © «year» «name_license»¶Released under the MIT license.
test Copyright, «year», «name_license» <«email_license»>
test Copyright (c) «year» «name_license» [«email_license»]
      ¶¶Permission is hereby granted, free of charge, to any person obtaining a copy
      ¶of this software and associated documentation files.
test SPDX-FileCopyrightText: «year» «name_license» <«email_license»>¶SPDX-License-Identifier: Apache-2.0
test All code in this module is (C) «name_license» «year»; see LICENSE.
test Copyright «year» by @«user_license»
test ------------------------------------¶ Name:     «word»¶ Author:   «name»¶ Created:  «date»¶ Licence:  GPL
      ¶------------------------------------
test Project «word», written in «year» by «name»¶Contact: «email»
test @file¶@author «name» («user»)¶@date «date»
test Portions copyright «year» «name_license»; portions copyright «year» «name_license2»
[tail]
train # «name»: needed for «word»
train # (c) «name_license»
train # TODO(«user»)
train # thanks, «name»
train # was «ip»
train # «user», «date»
train # ask «email»
train # per «name» («year»)
train # pw: «password»
train # token «key»
train # e.g. «email_example»
test # added by «name»
test # FIXME(«user»): why?
test # see «name2»'s comment
test # on «ip» only
test # hi @«user»
test # → «email»
test # «account»/«password»
test # key=«key»
test # by «name_example»
[note]
train  -- «name»
train  (thanks to «name»)
train  (@«user»)
train , see the mail of «name» <«email»>
train ; ask «user»
train , on «ip» at least
train  ("«password»" on staging)
train  [«key»]
train  (as «name_example» would)
test  - «name»
test  («name», «year»)
test  [«user»]
test , as @«user» noted
test , says «email»
test  (seen on «ip»)
test , password «password»
test : «key»
test  («name_example», «email_example»)
[docstring]
train :author: «name»
train Algorithm from «last» and «last2» («year»).
train .. [«digit»] «cite», «cite2» («year»). "«Word» of «word»s". J. «Word» «digit»(«digit»), «int».
train The method of «last» is used.
test Introduced by «last» et al. («year»).
test .. [«digit»] «cite» "«Word» «word» and «word»", «year».
test Uses «last»'s method, after «last2».
train :author: «name» <«email»>
train :copyright: «year» «name_license», see AUTHORS for details.
train .. codeauthor:: «name» <«email»>
train .. [1] «name», «name2»: "«Word» «word»", «year».
train Reference: «name» et al., «year».
train >>> connect("«ip»", port=«port»)
train >>> login("«user»", "«password»")
train >>> client = Client(api_key="«key»")
train Example: ``«Word»(host="«ip»", user="«user»")``
train >>> find("«name»").email¶'«email»'
train >>> Person("«name_example»", "«email_example»")
train Written by «name», based on ideas of «name2».
train Contact: «email»
test .. sectionauthor:: «name» <«email»>
test :Authors:¶    «name»,¶    «name2»
test @author: «name»
test :maintainer: «name» («email»)
test .. [2] «name» and «name2» («year»). On «word» «word»s.
test Contributed by @«user».
test Usage:  «word» --host «ip» --user «user» --password «password»
test >>> «word»(token="«key»")¶True
test >>> parse("«email»")¶('«email»',)
test Written by «name» in «year», who can be reached at «email».
test >>> greet("«name_example»", to="«email_example»")
[python]
train «keyvar» = "«key»"
train «KEYVAR» = "«key»"
train «word»_«keyvar» = "«key»"
train self.«keyvar» = "«key»"
train config = {"«keyvar»": "«key»", "«word»": «int»}
train os.environ.setdefault("«KEYVAR»", "«key»")
train «passvar» = "«password»"
train «PASSVAR» = "«password»"
train settings["«passvar»"] = "«password»"
train options = {"user": "«user»", "«passvar»": "«password»"}
train run("«word»", «passvar»="«password»")
train run(["«word»", "--«word»", "«password»"], env={"«PASSVAR»": "«password»"})
train assert check_password("«password»", hashed)
train «hostvar» = "«ip»"
train «HOSTVAR» = "«ip»"
train config.«hostvar» = "«ip»"
train network = ip_network("«ip»/24", strict=False)
train assert resolve("«host»") == "«ip»"
train «word»_owner = "«name»"
train def connect(«hostvar»="«ip»", port=«port»): ...
test «keyvar» = '«key»'  # «word»
test «KEYVAR» = b"«key»"
test conf.set("«word»", "«keyvar»", "«key»")
test data["«keyvar»"] = "«key»"
test client = Session(«keyvar»="«key»", region="us-east-1")
test «passvar» = '«password»'
test «PASSVAR» = b"«password»"
test conn = Connection("«host»", «passvar»="«password»")
test child.sendline("«password»")
test user.set_password("«password»")
test «hostvar» = '«ip»'
test «HOSTVAR» = b"«ip»"
test addresses = [ip_address("«ip»"), ip_address("«ip2»")]
test headers["X-Forwarded-For"] = "«ip», «ip2»"
test manager = '«email»'
test mentor = u"«name»"
train __author__ = "«name»"
train __author__ = "«name» <«email»>"
train __email__ = "«email»"
train __maintainer__ = "«name»"
train __credits__ = ["«name»", "«name2»"]
train author = "«name»"¶author_email = "«email»"
train AUTHORS = [("«name»", "«email»"), ("«name2»", "«email2»")]
train setup(name="«word»", version="«version»", author="«name»", author_email="«email»")
train password = "«password»"
train PASSWORD = "«password»"
train self.password = "«password»"
train username, password = "«user»", "«password»"
train user = "«user»"¶passwd = "«password»"
train db = connect(host="«ip»", user="«account»", password="«password»", db="«word»")
train conn = psycopg2.connect("host=«ip» dbname=«word» user=«account» password=«password»")
train engine = create_engine("postgresql://«account»:«urlpassword»@«host»:5432/«word»")
train MONGO_URL = "mongodb://«user»:«urlpassword»@«ip»:27017/«word»"
train config["SECRET_KEY"] = "«key»"
train SECRET_KEY = "«key:django»"
train AWS_ACCESS_KEY_ID = "«key:aws-id»"¶AWS_SECRET_ACCESS_KEY = "«key:aws-secret»"
train API_KEY = "«key»"
train api_key = "«key»"
train token = "«key»"
train access_token = "«key»"  # noqa
train headers = {"Authorization": "Bearer «key»"}
train headers = {"X-Api-Key": "«key»", "Accept": "application/json"}
train stripe.api_key = "«key:stripe»"
train os.environ["«WORD»_TOKEN"] = "«key»"
train slack = WebClient(token="«key:slack-bot»")
train client = Client("«key»")
train requests.get("https://«host»/v1/«word»?api_key=«key»")
train r = requests.post(url, auth=("«user»", "«password»"))
train parser.add_argument("--password", default="«password»")
train parser.add_argument("--host", default="«ip»")
train parser.add_argument("--email", default="«email»", help="who gets the report")
train self.client.login(username="«user»", password="«password»")
train user = User.objects.create_user("«user»", "«email»", "«password»")
train USERS = {¶    "«user»": "«password»",¶    "«user2»": "«password2»",¶}
train PEOPLE = [¶    {"name": "«name»", "email": "«email»"},¶    {"name": "«name2»", "email": "«email2»"},¶]
train assert parse("«name» <«email»>") == ("«name»", "«email»")
train assert get_user(«int»).name == "«name»"
train HOSTS = ["«ip»", "«ip2»", "«ip3»"]
train HOST = "«ip»"
train server = ("«ip»", «port»)
train sock.connect(("«ip»", «port»))
train url = "http://«ip»:«port»/«word»"
train ALLOWED_HOSTS = ["localhost", "«ip»"]
train send_mail("«word» failed", body, "«email»", ["«email2»"])
train msg["To"] = "«email»"
train smtp.login("«email»", "«password»")
train sys.path.insert(0, "/home/«user»/«word»")
train DATA = r"C:\\Users\\«user»\\Documents\\«word»"
train REPO = "https://github.com/«user»/«word».git"
train ssh.connect("«ip»", username="«user»", password="«password»")
train PRIVATE_KEY = \"\"\"-----BEGIN RSA PRIVATE KEY-----¶«pem»¶-----END RSA PRIVATE KEY-----\"\"\"
train logger.info("user «user» logged in from «ip»")
train name = "«name_example»"¶email = "«email_example»"
train login("«user_example»", "«password»")
train ACCOUNT_ID = "«id»"
train session_key = "«ambiguous»"
train reviewers = ["«user»", "«user2»", "«user3»"]
train assignee: str = "«user»"
train row = («int», "«name»", "«email»", "«date»")
train fake_response = {"login": "«user»", "id": «int», "name": "«name»"}
test __authors__ = ("«name»", "«name2»")
test __contact__ = "«email»"
test __author__: str = "«name» («email»)"
test setuptools.setup(¶    name="«word»",¶    maintainer="«name»",¶    maintainer_email="«email»",¶)
test DEFAULT_PASSWORD = "«password»"
test kwargs["passwd"] = "«password»"
test pwd = "«password»"
test creds = dict(login="«user»", pw="«password»")
test auth = HTTPBasicAuth("«user»", "«password»")
test pymysql.connect("«ip»", "«account»", "«password»", "«word»")
test DATABASE_URL = os.getenv("DATABASE_URL", "mysql://«account»:«urlpassword»@«ip»/«word»")
test redis = Redis.from_url("redis://:«urlpassword»@«ip»:6379/0")
test app.secret_key = "«key»"
test boto3.client("s3", aws_access_key_id="«key:aws-id»", aws_secret_access_key="«key:aws-secret»")
test TELEGRAM = "«key»"
test session.headers.update({"Authorization": "token «key»"})
test self._token = "«key»"
test openai.api_key = "«key:openai»"
test params = {"apikey": "«key»", "q": "«word»"}
test monkeypatch.setenv("«WORD»_SECRET", "«key»")
test gh = Github("«key»")
test add("--token", type=str, default="«key»")
test add("--passphrase", type=str, default="«password»")
test response = client.post("/login", data={"username": "«user»", "password": "«password»"})
test alice = Account(name="«name»", mail="«email»", secret="«password»")
test ACCOUNTS = [("«user»", "«password»"), ("«user2»", "«password2»")]
test CONTACTS = {"«name»": "«email»", "«name2»": "«email2»"}
test self.assertEqual(author.full_name, "«name»")
test expected = "From: «name» <«email»>"
test SERVERS = {"«word»": "«ip»", "«word»": "«ip2»"}
test bind = "«ip»:«port»"
test DNS = ("«ip»", "«ip2»")
test proxy = {"http": "http://«account»:«urlpassword»@«ip»:«port»"}
test app.run(host="«ip»", port=«port»)
test recipients = ["«email»", "«email2»"]
test mailer.send(to="«email»", subject="«word»")
test root = Path("/home/«user»/«word»/«word»")
test gist = "https://gist.github.com/«user»/«word»"
test ftp = FTP("«ip»", "«user»", "«password»")
test key = RSA.import_key(\"\"\"-----BEGIN PRIVATE KEY-----¶«pem»¶-----END PRIVATE KEY-----\"\"\")
test print("hello «name», your address is «email»")
test customer = {"name": "«name_example»", "mail": "«email_example»"}
test user = get_user("«user_example»")
test member_id = "«id»"
test nonce = "«ambiguous»"
test owners = {"«word»": "@«user»", "«word»": "@«user2»"}
test author = {"name": "«name»", "url": "https://twitter.com/«user»"}
test data = ["«name»", «int», "«ip»"]
[c]
train const char *«keyvar» = "«key»";
train static const char *«passvar» = "«password»";
train #define «PASSVAR» "«password»"
train #define «KEYVAR» "«key»"
train const char *«hostvar» = "«ip»";
train connect_to("«ip»", «port», "«user»", "«password»");
train client.setServer("«ip»", «port»);
test #define «KEYVAR»  "«key»" /* «word» */
test static const char «passvar»[] = "«password»";
test static char «keyvar»[] = "«key»";
test std::string «hostvar»("«ip»");
test WiFi.begin("«word»", "«password»");
test client.authenticate("«user»", "«password»");
train #define AUTHOR "«name»"
train #define DEFAULT_PASSWORD "«password»"
train #define API_KEY "«key»"
train #define SERVER_IP "«ip»"
train static const char *password = "«password»";
train const char *ssid_pass = "«password»";
train const char token[] = "«key»";
train const char *hosts[] = {"«ip»", "«ip2»"};
train MODULE_AUTHOR("«name» <«email»>");
train addr.sin_addr.s_addr = inet_addr("«ip»");
train mysql_real_connect(db, "«ip»", "«account»", "«password»", "«word»", 0, NULL, 0);
train static struct user users[] = {{"«user»", "«password»"}, {"«user2»", "«password2»"}};
train printf("Report bugs to «email»\\n");
train const char *home = "/home/«user»/«word»";
train const char *who = "«name_example» <«email_example»>";
test #define BUG_EMAIL "«email»"
test #define WIFI_PSK "«password»"
test #define MASTER_ADDR "«ip»"
test char secret[] = "«key»";
test std::string apiKey = "«key»";
test std::string passwd("«password»");
test MODULE_AUTHOR("«name»");
test static const char *authors[] = {"«name»", "«name2»", NULL};
test inet_pton(AF_INET, "«ip»", &sa);
test curl_easy_setopt(curl, CURLOPT_USERPWD, "«user»:«password»");
test assert(strcmp(owner, "«user»") == 0);
test fputs("Written by «name».\\n", stdout);
test setenv("USER", "«user_example»", 1); /* «name_example», «email_example» */
[js]
train const «keyvar» = '«key»';
train const config = { «passvar»: '«password»', «hostvar»: '«ip»' };
test let «keyvar» = "«key»";
test var options = { «passvar»: "«password»", «hostvar»: "«ip»" };
train const password = '«password»';
train const apiKey = "«key»";
train const client = new Client({ token: '«key»', host: '«ip»' });
train const pkg = { author: '«name» <«email»>' };
train mongoose.connect('mongodb://«user»:«urlpassword»@«host»/«word»');
train firebase.initializeApp({ apiKey: "«key:google»", projectId: "«word»-«int»" });
train const users = [{ name: '«name»', email: '«email»' }];
train fetch('http://«ip»:«port»/«word»', { headers: { Authorization: 'Bearer «key»' } });
train const owner = { login: '«user»' }; // «name_example», «email_example»
test let secret = '«key»';
test var pass = "«password»";
test axios.get(url, { auth: { username: '«user»', password: '«password»' } });
test const server = '«ip»';
test module.exports.author = { name: "«name»", email: "«email»" };
test cy.login('«user»', '«password»');
test const demo = { name: '«name_example»', email: '«email_example»' };
[java]
train private String «passvar» = "«password»";
test final String «keyvar» = "«key»";
test client.connect("«ip»", «port»);
train private static final String PASSWORD = "«password»";
train String apiKey = "«key»";
train String url = "jdbc:mysql://«ip»:3306/«word»?user=«account»&password=«urlpassword»";
train Connection c = DriverManager.getConnection(url, "«user»", "«password»");
train User user = new User("«name»", "«email»");
train String owner = "«name_example»"; // «email_example»
test public static final String TOKEN = "«key»";
test var connection = "Server=«ip»;Database=«word»;User Id=«account»;Password=«urlpassword»;";
test String author = "«name»";
test mail.addTo("«email»");
test login("«user»", "«password»");
test assertEquals("«name_example»", owner("«email_example»"));
[shell]
train «KEYVAR»=«key»
train export «PASSVAR»='«password»'
test «HOSTVAR»=«ip»
test export «KEYVAR»="«key»"
train export AWS_SECRET_ACCESS_KEY=«key:aws-secret»
train export DB_PASSWORD="«password»"
train DB_PASS=«password»
train mysql -u «account» -p«password» -h «ip» «word»
train curl -H "Authorization: Bearer «key»" https://«host»/api
train curl -u «user»:«urlpassword» https://«host»/«word»
train sshpass -p '«password»' ssh «user»@«ip»
train docker run -e POSTGRES_PASSWORD=«password» -d postgres
train git config --global user.name "«name»"
train git config --global user.email "«email»"
train MAILTO=«email»
train rsync -a build/ «user»@«ip»:/srv/«word»/
train ping -c 1 «ip»
train cd /home/«user»/«word»
train git clone https://«user»:«key:github»@github.com/«user»/«word».git
train NAME="«name_example»" EMAIL="«email_example»"
test export GITLAB_TOKEN='«key»'
test PGPASSWORD=«password» psql -h «ip» -U «account»
test echo "«user»:«password»" | chpasswd
test docker login -u «user» -p «password» «host»
test http --auth «user»:«urlpassword» :«port»/api
test SERVERS="«ip» «ip2»"
test mail -s done «email» < log
test GIT_AUTHOR_NAME="«name»" GIT_AUTHOR_EMAIL="«email»" git commit
test npm config set //registry.npmjs.org/:_authToken «key»
test chown -R «user»:«user» /srv/«word»
test ADMIN="«name_example»" MAIL="«email_example»"
[json]
train "«keyvar»": "«key»",
train "«passvar»": "«password»",
train "«hostvar»": "«ip»",
test "«passvar»" : "«password»",
test "«keyvar»" : "«key»",
test "«hostvar»" : "«ip»",
train "author": "«name» <«email»>",
train "author": {"name": "«name»", "email": "«email»"},
train "maintainers": [{"name": "«user»", "email": "«email»"}],
train "password": "«password»",
train "apiKey": "«key»",
train "host": "«ip»",
train "contributors": ["«name» <«email»>", "«name2»"],
train "connection": "postgres://«account»:«urlpassword»@«ip»:5432/«word»",
train "login": "«user»",
train "employee_id": "«id»",
train "example": {"name": "«name_example»", "email": "«email_example»"},
test "owner": {"login": "«user»", "name": "«name»"},
test "bugs": {"email": "«email»"},
test "auth_token": "«key»",
test "client_secret": "«key»",
test "db": {"user": "«account»", "pass": "«password»", "host": "«ip»"},
test "servers": ["«ip»", "«ip2»"],
test "reviewer": "«name»",
test "sample": "«name_example», «email_example»",
[yaml]
train «keyvar»: "«key»"
train «passvar»: «password»
test «keyvar»: '«key»'
test «hostvar»: "«ip»"
train password: «password»
train password: "«password»"
train api_key: «key»
train author: «name» <«email»>
train maintainer: "«name»"
train host: «ip»
train DB_URL: postgres://«account»:«urlpassword»@«ip»:5432/«word»
train email: «email»
train assignee: «user»
train customer: {name: «name_example», email: «email_example»}
test secret: "«key»"
test token: «key»
test db_password: '«password»'
test authors: ["«name»", "«name2»"]
test ansible_host: «ip»
test ansible_user: «user»
test contact: «name», «email»
test owner: «name_example» <«email_example»>
[env]
train «KEYVAR»=«key»
train «PASSVAR»=«password»
test «WORD»_«KEYVAR»=«key»
test «WORD»_«PASSVAR»="«password»"
train SECRET_KEY=«key»
train «WORD»_API_KEY=«key»
train MAIL_USERNAME=«email»
train MAIL_PASSWORD=«password»
train REDIS_URL=redis://:«urlpassword»@«ip»:6379/0
train DB_HOST=«ip»
train DB_USER=«user»
train DB_PASS=«password»
train ADMIN_NAME="«name»"
train DEMO_USER="«name_example» <«email_example»>"
test AWS_SECRET=«key:aws-secret»
test GITHUB_PAT="«key»"
test SMTP_PASS=«password»
test DATABASE_URL=mysql://«account»:«urlpassword»@«host»/«word»
test UPSTREAM=«ip»:«port»
test REPORT_TO=«email»
test OWNER=«user»
test OWNER_NAME='«name»'
test SAMPLE="«name_example» <«email_example»>"
[ini]
train «keyvar» = «key»
train «passvar»: «password»
test «passvar»=«password»
test «keyvar»: «key»
train password = «password»
train user = «user»
train author = «name»
train author_email = «email»
train token = «key»
train bind-address = «ip»
train sample = «name_example», «email_example»
test passwd=«password»
test maintainer = «name» <«email»>
test api_secret=«key»
test server=«ip»
test login = «user»
test demo = «name_example» («email_example»)
[hosts]
train «ip»	«word» «word».local
train «ip» «host»
train # «name»'s desktop¶«ip»    «user»-desktop
train # old entry of «name_example» («email_example»)
test «ip»	«host» «word»
test «ip»    «word»-«digit».«word».internal   # «user»
test # below: «name», «email»
test # sample of «name_example», «email_example»
[codeowners]
train *       @«user»
train /«word»/    @«user» @«user2»
train /docs/      «email»
train # «name» owns the rest
train # sample: @«user_example» «email_example»
test src/«word»/*   @«user» «email»
test *.«word»  @«user» @«user2» @«user3»
test # ask «name» first
test # like @«user_example» or «email_example»
[git]
train commit «sha1»¶Author: «name» <«email»>¶Date:   «date»¶¶    «word» the «word»
train * «hash» «word» «word» (@«user»)
train - «word» now takes a «word» («name»)
train - Fix «word» (#«int», thanks to @«user»)
train   Signed-off-by: «name» <«email»>
train - docs: use «name_example» and «email_example» everywhere
test commit «sha1»¶Author:     «name» <«email»>¶Commit:     «name2» <«email2»>¶¶    add «word»
test «hash» («name» «date» «int») return «word»
test * Dropped «word», by `@«user» <https://github.com/«user»>`_
test   Co-authored-by: «name» <«email»>
test «version» («date», «name»): «word» added
test * tests: «name_example», «email_example» as sample
[sql]
train INSERT INTO users (name, email) VALUES ('«name»', '«email»');
train INSERT INTO «word» VALUES («int», '«user»', '«password»', '«ip»');
train CREATE USER «user» IDENTIFIED BY '«password»';
train UPDATE config SET value = '«key»' WHERE name = '«word»';
train INSERT INTO demo VALUES ('«name_example»', '«email_example»');
test («int», '«name»', '«email»', '«date»'),
test ALTER USER «account» WITH PASSWORD '«password»';
test GRANT ALL ON «word».* TO '«user»'@'«ip»' IDENTIFIED BY '«password»';
test INSERT INTO tokens VALUES («int», '«key»');
test («int», '«name_example»', '«email_example»'),
[nginx]
train server «ip»:«port»;
train allow «ip»;
train proxy_pass http://«ip»:«port»/«word»;
train proxy_set_header Authorization "Bearer «key»";
train # «name» <«email»>
train # try @«user_example», «name_example» or «email_example»
test server «ip»:«port» weight=«digit»;
test deny «ip»;
test set_real_ip_from «ip»;
test set $token "«key»"; # «name»
test # page «email» first
test # placeholder «name_example», «email_example»
[log]
train «date» «time» INFO login of «user» from «ip»
train «ip» - - [«date» «time»] "GET /«word» HTTP/1.1" 200 «int»
train «date» «time» ERROR auth failed for «email» («ip»)
train «time» «word» sshd[«int»]: Accepted password for «user» from «ip» port «port» ssh2
train DEBUG Authorization: Bearer «key»
train DEBUG payload {"user": "«user»", "password": "«password»"}
train INFO welcome «name»
train INFO sample row «name_example», «email_example»
test [«date»] WARN user=«user» addr=«ip» retry=«digit»
test «ip» «ip2» TCP «port» -> 443
test «time» mailer: sent to «email» («name»)
test TRACE x-api-key: «key»
test TRACE form login=«user»&password=«urlpassword»
test INFO demo «name_example», «email_example»
[xml]
train <author>«name»</author>
train <developer><id>«user»</id><name>«name»</name><email>«email»</email></developer>
train <password>«password»</password>
train <add key="ApiKey" value="«key»"/>
train <server address="«ip»" port="«port»"/>
train <contact name="«name_example»" mail="«email_example»"/>
test <maintainer email="«email»">«name»</maintainer>
test <username>«user»</username>¶<password>«password»</password>
test <property name="token" value="«key»"/>
test <host>«ip»</host>
test <user name="«name_example»" email="«email_example»"/>
[toml]
train authors = ["«name» <«email»>"]
train authors = [{name = "«name»", email = "«email»"}]
train password = "«password»"
train token = "«key»"
train listen = "«ip»:«port»"
train Homepage = "https://github.com/«user»/«word»"
train sample = "«name_example» <«email_example»>"
test maintainers = [{name = "«name»"}, {name = "«name2»"}]
test contact = "«email»"
test secret-key = "«key»"
test db-password = "«password»"
test peers = ["«ip»", "«ip2»"]
test Source = "https://gitlab.com/«user»/«word»"
test demo = "«name_example» <«email_example»>"
[csv]
train «int»,«name»,«email»,«date»
train «name»;«email»;«ip»
train «id»,«user»,«email»
train «int»,«user»,«password»
train «word»,«key»,«date»
train «int»,«name_example»,«email_example»
test "«name»","«email»",«int»
test «user»,«name»,«ip»,«date»
test «int»|«id»|«user»|«password»
test «date»,«word»,«key»
test "«name_example»","«email_example»",«int»
[markdown]
train Maintained by [«name»](https://github.com/«user»).
train Contact: «name» <«email»>
train Thanks to [@«user»](https://github.com/«user») and «name».
train - «version»: fixed «word» (@«user»)
train Log in as `«user»` with password `«password»`.
train Then set `TOKEN=«key»` and open http://«ip»:«port»/.
train Say `hello "«name_example»"` or write to «email_example».
test **Author:** «name» («email»)
test Made by @«user»
test * «name» - initial work
test The default login is «account»:«password» at «ip».
test Your key looks like `«key»`.
test Mail «name_example» (`«email_example»`) then.
""")
"""Kind of place → split → templates."""
