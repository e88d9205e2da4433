"""Prometheus: scrapes the metrics and reads them with the parser of its client library.

usage: scrape.py URL TOKEN
prints: {"NAME": {"type": …, "help": …, "samples": [[NAME, LABELS, VALUE], …]}, …} as JSON
"""

import json
import sys

import httpx
from prometheus_client.parser import text_string_to_metric_families

url, token = sys.argv[1:]
response = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"})
assert response.status_code == 200, response.text
assert response.headers["content-type"].startswith("text/plain; version=0.0.4"), response.headers
families = {}
for family in text_string_to_metric_families(response.text):
    assert family.name not in families, f"{family.name} comes twice"
    samples = [[sample.name, sample.labels, sample.value] for sample in family.samples]
    families[family.name] = {"type": family.type, "help": family.documentation, "samples": samples}
print(json.dumps(families))
