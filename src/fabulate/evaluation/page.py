"""The HTML of pages that `fabulate.report` does not make yet.

Colours follow the reader's system, light or dark; on a narrow screen each row of a table becomes a block.
"""

from collections.abc import Iterable
from html import escape
from string import Template

from PIL import Image

from fabulate.pictures import img
from fabulate.report import Card as Answer
from fabulate.report import number as number

PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c2330; --soft: #626b7c; --line: #e3e6ec; --paper: #ffffff; --ground: #f4f5f8;
  --accent: #2c66a8; --good: #16805a; --fair: #a86b00; --poor: #c03a32; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #9aa4b5; --line: #2d3442; --paper: #1a1f29; --ground: #11151c;
    --accent: #78b0ee; --good: #4cc79a; --fair: #e3ad4d; --poor: #f0827a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 20px 64px; }
.eyebrow { margin: 0; color: var(--accent); font-size: 13px; font-weight: 600; letter-spacing: .08em;
  text-transform: uppercase; }
h1 { margin: 2px 0 14px; font-size: 34px; line-height: 1.2; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { margin: 0 0 4px; font-size: 21px; letter-spacing: -.01em; }
h3 { margin: 26px 0 6px; font-size: 14px; color: var(--soft); font-weight: 600; }
section, .answers > div { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; }
section { padding: 24px 28px; margin-top: 20px; }
dl { margin: 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px 28px; }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 16px; margin-top: 26px; }
.answers > div { padding: 18px 22px; border-top-width: 3px; }
.answers h2 { font-size: 14px; color: var(--soft); font-weight: 600; letter-spacing: 0; }
.answers strong { display: block; font-size: 22px; line-height: 1.25; margin: 2px 0 8px; }
.answers strong::first-letter { text-transform: uppercase; }
.answers p { margin: 0; font-size: 14.5px; }
.good { border-top-color: var(--good) !important; } .good strong { color: var(--good); }
.fair { border-top-color: var(--fair) !important; } .fair strong { color: var(--fair); }
.poor { border-top-color: var(--poor) !important; } .poor strong { color: var(--poor); }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; margin-top: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-size: 13px; font-weight: 600; padding: 6px 14px 6px 0;
  border-bottom: 1px solid var(--line); vertical-align: bottom; }
td { padding: 11px 14px 11px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th:last-child, td:last-child { padding-right: 0; }
.value { font-weight: 600; font-size: 17px; white-space: nowrap; }
.range { white-space: nowrap; }
.soft, .words { color: var(--soft); font-size: 13.5px; }
.words { display: block; max-width: 34em; }
.scale { min-width: 190px; width: 30%; }
.scale svg { display: block; width: 100%; height: auto; }
.ends { display: flex; justify-content: space-between; color: var(--soft); font-size: 12.5px; }
.track { stroke: var(--line); stroke-width: 6; stroke-linecap: round; }
.interval { stroke: var(--accent); stroke-width: 6; stroke-linecap: round; opacity: .4; }
.point { fill: var(--accent); stroke: var(--paper); stroke-width: 1.5; }
.sentences { margin: 16px 0 0; padding: 0; list-style: none; font-size: 15px; }
.sentences li { padding: 3px 0 3px 14px; border-left: 3px solid var(--line); margin-bottom: 5px; }
.pictures { display: flex; flex-wrap: wrap; gap: 24px; margin-top: 20px; align-items: flex-start; }
figure { margin: 0; max-width: 100%; }
figure img { max-width: 100%; height: auto; border-radius: 6px; background: #fff; display: block; }
figcaption { color: var(--soft); font-size: 13.5px; margin-top: 6px; max-width: 56em; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 18px; margin-top: 18px; }
.cards figcaption { font-size: 12.5px; line-height: 1.4; overflow-wrap: anywhere; }
.threshold { grid-column: 1 / -1; margin: 0; padding-top: 8px; border-top: 3px solid var(--poor); font-size: 14.5px; }
.histogram { display: block; width: 100%; height: auto; margin: 10px 0; } .histogram text { fill: var(--soft);
  font-size: 13px; } .axis { fill: var(--line); } .at { fill: var(--poor); }
.judged { fill: var(--accent); background: var(--accent); opacity: .55; }
.normals { fill: var(--good); background: var(--good); opacity: .55; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-left: 6px; vertical-align: -1px; }
.absent { font-size: 14.5px; } .absent dt { font-weight: 600; margin-top: 8px; }
.absent dd { margin: 0; color: var(--soft); }
details { margin-top: 18px; } summary { cursor: pointer; color: var(--accent); font-size: 14.5px; }
.ahead { color: var(--good); }
footer { color: var(--soft); font-size: 13.5px; margin-top: 26px; }
a { color: var(--accent); }
@media (max-width: 700px) {
  main { padding: 22px 12px 40px; } section { padding: 18px 16px; } h1 { font-size: 26px; }
  .rows thead { display: none; } .rows tr { display: block; padding: 12px 0; border-bottom: 1px solid var(--line); }
  .rows tr:last-child { border-bottom: 0; } .rows td { display: block; border: 0; padding: 2px 0; }
  .rows td[data-name]:not(:empty)::before { content: attr(data-name) " "; color: var(--soft); font-size: 13px; }
  .scale { width: 100%; } }
@media print { body { background: #fff; } section { break-inside: avoid-page; } }
</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")


def figure(caption: str, image: Image.Image) -> str:
    """A picture, as a PNG inside the page, with its caption."""
    return f"<figure>{img(image, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def facts(values: Iterable[tuple[str, str]]) -> str:
    """Names and values, in columns."""
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values)
        + "</dl>"
    )


def answers(found: Iterable[Answer]) -> str:
    """The questions people ask, each with its verdict and the numbers behind it."""
    cards = [
        f'<div class="{answer.grade}"><h2>{escape(answer.question)}</h2><strong>{escape(answer.verdict)}</strong>'
        f"<p>{escape(answer.because)}</p></div>"
        for answer in found
    ]
    return f'<div class="answers">{"".join(cards)}</div>' if cards else ""


def page(title: str, body: str) -> str:
    """A whole page."""
    return PAGE.substitute(title=escape(title), body=body)
