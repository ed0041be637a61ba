"""Small documents to search among."""

from starcoder.corpus.document import Document

TEXTS = {
    "sort": "def bubble(items):\n    for i in range(len(items)):\n        swap(items, i)\n    return items\n",
    "json": "import json\n\ndef load(path):\n    with open(path) as file:\n        return json.load(file)\n",
    "hash": "int hash(const char *s) {\n    int h = 5381;\n    while (*s) h = h * 33 ^ *s++;\n    return h;\n}\n",
}


def document(name: str, repository: str, text: str, language: str = "python", licenses: str = "MIT") -> Document:
    return Document(repository, name, language, "py", tuple(licenses.split()), len(text), text, source="test")


SHARDS = [
    [document("sort.py", "Ann/Lib", TEXTS["sort"]), document("hash.c", "bob/c", TEXTS["hash"], "c", "MIT Zlib")],
    [document("json.py", "group/sub/tool", TEXTS["json"], licenses="Apache-2.0"), document("n.py", "wheel", "x = 1\n")],
]
