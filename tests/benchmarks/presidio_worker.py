"""presidio's side of `bench_pii_addresses`, run by the Python of an environment that has presidio and lacks the kit.

Texts come as JSON on stdin, findings and CPU seconds go as JSON to stdout. The e-mail recogniser asks tldextract about
each domain, which would download the list of suffixes: it gets one that knows the list in its package alone.
"""

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import tldextract

tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

from presidio_analyzer.predefined_recognizers import EmailRecognizer, IpRecognizer  # noqa: E402


def measured(recognizer: Any, entity: str, texts: list[str]) -> dict[str, Any]:
    """Start and end of the findings in each text, and the CPU seconds that they took."""
    start = time.process_time()
    found = [recognizer.analyze(text, [entity], None) for text in texts]
    seconds = time.process_time() - start
    return {"spans": [sorted((one.start, one.end) for one in some) for some in found], "seconds": seconds}


def main() -> None:
    texts = json.load(sys.stdin)
    answer = {
        "EMAIL": measured(EmailRecognizer(), "EMAIL_ADDRESS", texts),
        "IP_ADDRESS": measured(IpRecognizer(), "IP_ADDRESS", texts),
        "version": version("presidio-analyzer"),
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
