"""Hostile text, and reports that are full of it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

# Ways to get out of text and into a page: tags, attributes, blocks of script and style, templates,
# JSON, links, and letters that are not what they seem. Each would call `pwn()`.
PAYLOADS = (
    "<script>pwn()</script>",
    "</script><script>pwn()</script>",
    "</SCRIPT ><script>pwn()</script>",
    "<!--<script>pwn()</script>-->",
    "<!-- --!><script>pwn()</script>",
    "<img src=x onerror=pwn()>",
    "<img src='x' onerror='pwn()'",
    '"><img src=x onerror=pwn()>',
    "'><svg onload=pwn()>",
    "<svg><script>pwn()</script></svg>",
    "<svg><animate onbegin=pwn() attributeName=x dur=1s>",
    "<svg><a xlink:href='javascript:pwn()'><text y=9>x</text></a></svg>",
    "<svg><foreignObject><body onload=pwn()></foreignObject></svg>",
    "<math><mtext><style><img src=x onerror=pwn()></style></mtext></math>",
    "<details open ontoggle=pwn()>",
    "<input autofocus onfocus=pwn()>",
    "<body onload=pwn()>",
    "<iframe srcdoc='<script>parent.pwn()</script>'></iframe>",
    "<iframe src='javascript:parent.pwn()'></iframe>",
    "<object data='data:text/html,<script>parent.pwn()</script>'></object>",
    "<embed src='http://evil.example/x.swf'>",
    "<link rel=stylesheet href='http://evil.example/x.css'>",
    "<style>@import 'http://evil.example/x.css';</style>",
    "</style><script>pwn()</script>",
    "x; background: url(http://evil.example/x.png)",
    "<base href='http://evil.example/'>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<form action='http://evil.example/'><button>x</button></form>",
    "</title><script>pwn()</script>",
    "</textarea></noscript><script>pwn()</script>",
    "</pre></code></td></table><script>pwn()</script>",
    '"}]};pwn();//',
    "\\u003cscript\\u003epwn()\\u003c/script\\u003e",
    "\u2028pwn()\u2029<script>pwn()</script>",
    "{{ pwn() }}{% include 'x' %}{{ ''.__class__.__mro__ }}",
    "${pwn()}`;pwn();`",
    "[x](javascript:pwn()) ![x](http://evil.example/x.png)",
    "javascript:pwn()",
    "&lt;script&gt;pwn()&lt;/script&gt;&#60;img src=x onerror=pwn()&#62;",
    "\u202e<\u200bscript>pwn()</script>\x00\x1b[2J<scr\x00ipt>pwn()</script>\ud800",
    "constructor __proto__ </template><script>pwn()</script>",
    "\uff1cscript\uff1epwn()\uff1c/script\uff1e \u02baonload=pwn()\u02ba",
)
# What the page reads as a name of its own: data never come here.
_NAMES = {"severity", "kind", "status"}


def poisoned(value, payload, name=""):
    """A copy of a report whose every text starts and ends with `payload`."""
    if isinstance(value, str):
        return value if name in _NAMES else f"{payload} {value} {payload}"
    if isinstance(value, dict):
        # Lines of a table have free names, rows of other parts have fixed ones.
        free = name in ("facts", "estimate", "diversity", "p_values", "slices")
        return {
            (poisoned(key, payload) if free else key): poisoned(item, payload, key)
            for key, item in value.items()
        }
    if isinstance(value, tuple | list):
        return type(value)(poisoned(item, payload) for item in value)
    if is_dataclass(value):
        parts = {f.name: poisoned(getattr(value, f.name), payload, f.name) for f in fields(value)}
        return type(value)(**parts)
    return value


def together(reports):
    """One report with the lines and rows of all `reports`."""
    usage = [report.usage for report in reports]
    parts = {
        name: tuple(item for report in reports for item in getattr(report, name))
        for name in ("account", "findings", "topics", "suspicious", "views", "notes", "checks")
    }
    tables = {
        name: {key: text for report in reports for key, text in getattr(report, name).items()}
        for name in ("facts", "estimate", "diversity")
    }
    lists = {
        name: [item for part in usage for item in part[name]]
        for name in ("uncovered", "groups", "facts")
    }
    words = [word for part in usage for word in part["classifier"]["words"]]
    return replace(
        reports[0],
        title=" ".join(report.title for report in reports),
        usage={**usage[0], **lists, "classifier": {"auc": 0.5, "p": 1, "words": words}},
        **parts,
        **tables,
    )
