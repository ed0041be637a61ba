"""PII (paper §4): names, e-mails, keys, passwords and IP addresses in code are found, judged and redacted."""
