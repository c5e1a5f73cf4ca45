"""The access review as one HTML file that needs nothing else and reads well on paper."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

from gateway.audit.display import printable
from gateway.audit.review import Access, Finding, KeyLine, Review

_STYLE = """
:root { color-scheme: light; }
body { font: 10.5pt/1.45 Georgia, 'Times New Roman', serif; color: #111; background: #fff; margin: 2.5em auto;
  max-width: 52em; padding: 0 1.5em; }
h1 { font-size: 1.7em; margin: 0 0 .2em; } h2 { font-size: 1.2em; margin: 2em 0 .5em; border-bottom: 1px solid #999; }
h3 { font-size: 1.05em; margin: 1.4em 0 .3em; } .quiet { color: #555; }
table { border-collapse: collapse; width: 100%; margin: .4em 0 .8em; }
th, td { text-align: left; vertical-align: top; padding: .2em .7em .2em 0; border-bottom: 1px solid #ddd; }
th { font-weight: normal; color: #555; border-bottom: 1px solid #999; }
code { font: .85em/1.3 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.act { font-weight: bold; } .act::before { content: '\\25A0\\00A0'; } .look::before { content: '\\25A1\\00A0'; }
.refused { text-decoration: line-through; } .person { break-inside: avoid; }
.sign { margin-top: 3em; display: flex; gap: 3em; }
.sign div { flex: 1; border-top: 1px solid #111; padding-top: .3em; }
@page { size: A4; margin: 18mm 16mm; }
@media print { body { margin: 0; padding: 0; max-width: none; } h2 { break-after: avoid; }
  thead { display: table-header-group; } }
"""


def review_page(review: Review, journal: str = "") -> str:
    """Return the page. `journal` is a sentence on the journal's state, such as verify's result."""
    act = sum(finding.severity == "act" for finding in review.findings)
    look = len(review.findings) - act
    summary = (
        f"{len(review.people)} people under {_text(review.policy)}: "
        f"{_count(act, 'finding')} to act upon, {_count(look, 'finding')} to look at."
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Access review of {review.at:%Y-%m-%d}</title><style>{_STYLE}</style></head><body>",
            f"<h1>Access review</h1><p class=quiet>As of {review.at:%Y-%m-%d %H:%M %Z}.</p><p>{summary}</p>",
            f"<p>{_text(journal)}</p>" if journal else "",
            "<h2>Findings</h2>",
            _findings(review.findings),
            "<h2>Who may reach what</h2>",
            *(_person(access) for access in review.people),
            '<div class="sign"><div>Reviewed by</div><div>Date</div></div>',
            "</body></html>\n",
        ]
    )


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<p>Nothing to look at.</p>"
    rows = (
        [
            f'<span class="{finding.severity}">{_text(finding.code)}</span>',
            _text(finding.subject),
            _text(finding.message),
        ]
        for finding in findings
    )
    return _table(["what", "who", ""], rows)


def _person(access: Access) -> str:
    state = " (disabled)" if access.disabled else ""
    may = _table(["may", ""], ([_text(name), _text(value)] for name, value in access.may))
    by = ((_text(role), _text(grant), _day(until, "no end")) for role, grant, until in access.grants)
    grants = _table(["by the role", "by the grant", "until"], by) if access.grants else "<p>Holds no role.</p>"
    keys = _table(["key", "kind", "added", "last used"], map(_key_cells, access.keys)) if access.keys else ""
    return (
        f'<section class="person"><h3>{_text(access.user)}{state} '
        f"<span class=quiet>last login {_day(access.last_login_at, 'never')}</span></h3>{may}{grants}{keys}</section>"
    )


def _key_cells(key: KeyLine) -> list[str]:
    mark = "" if key.accepted else ' class="refused"'
    why = "" if key.accepted else f"<br>{_text(key.why)}"
    comment = f" {_text(key.comment)}" if key.comment else ""
    return [
        f"<code{mark}>{_text(key.fingerprint)}</code>{comment}{why}",
        _text(key.kind),
        _day(key.added_at, "unknown"),
        _day(key.last_used_at, "never"),
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Build a table; cells are HTML already."""
    head = "".join(f"<th>{_text(cell)}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(text: str) -> str:
    return escape(printable(text))


def _day(moment: datetime | None, otherwise: str) -> str:
    return f"{moment:%Y-%m-%d}" if moment else otherwise


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
