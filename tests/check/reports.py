"""Reports as `sft check` makes them, for the tests of what shows them."""

from __future__ import annotations

from dataclasses import replace

from sft.check.report import AccountLine, CheckReport, RowView
from sft.curate.finding import DataFinding
from sft.data.lengths import Lengths
from sft.data.template.pieces import Piece

FILE = "support/tickets_2024.jsonl"
QUESTIONS = (
    "My parcel says delivered, but nothing is here. What now?",
    "Wie kündige ich mein Abo zum Monatsende?",
    "How do I change the e-mail address of my account?\nI no longer have the old one.",
    "Please write a SQL query:\n\tall orders of last week\n\tby country",
)
ANSWERS = (
    "I am sorry about that. Please check with your neighbours first; if it does not turn up by "
    "tomorrow, reply here and we send a new one.",
    "Öffne „Konto“, dann „Abo“, und wähle „Zum Monatsende kündigen“. Du erhältst sofort eine "
    "Bestätigung. 👍",
    "Send us a photo of your invoice, and we change it for you.\n\n1. Black out the prices.\n"
    "2. Leave the order number readable.",
    "```sql\nSELECT country, count(*) FROM orders\nWHERE placed >= now() - interval '7 days'\n"
    "GROUP BY country;\n```",
)


def place(line: int) -> str:
    return f"{FILE}:{line}"


def view(line: int, question: str, answer: str, serving: str | None = "") -> RowView:
    """A row as ChatML shows it."""
    start, end = Piece("<|im_start|>", "masked", True), Piece("<|im_end|>", "masked", True)
    turns = (("system", "You are a friendly support agent."), ("user", question))
    pieces = [
        part
        for role, text in turns
        for part in (start, Piece(f"{role}\n{text}", "masked"), end, Piece("\n", "masked"))
    ]
    pieces += [
        start,
        Piece("assistant\n", "masked"),
        Piece(answer, "partly" if line % 7 == 0 else "trained"),
        Piece("<|im_end|>", "trained", True),
        Piece("\n", "masked"),
    ]
    tokens = (len(question) + len(answer)) // 4
    return RowView(place(line), tokens + 30, tokens, tuple(pieces), serving)


def views(number: int = 60) -> tuple[RowView, ...]:
    """Rows with different texts, one of which is served differently and one not compared."""
    made = [
        view(i + 1, f"{QUESTIONS[i % 4]} (ticket {i + 1})", ANSWERS[i % 4]) for i in range(number)
    ]
    differs = (
        "messages[1]: token 31: sent '<|im_end|> now', trained on '<|im_end'. The row spells a "
        "special token, which is trained on as text; `sft chat` sends it as text too, other "
        "servers send the token"
    )
    made[1] = replace(made[1], serving=differs)
    made[2] = replace(made[2], serving=None)
    return tuple(made)


FINDINGS = (
    DataFinding(
        "unusable",
        "error",
        3,
        (place(118), place(340), place(977)),
        f"3 of 1,000 rows cannot be used; the first: messages[1].content is empty [{place(118)}]",
        "correct them, or leave them out: --set data.on_bad_row=skip",
    ),
    DataFinding(
        "leaks",
        "error",
        4,
        tuple(map(place, (12, 45, 90, 391))),
        "4 rows of data.val are also in data.train; validation would measure memory",
        "--set data.val_fraction=0.05",
    ),
    DataFinding(
        "near_duplicates",
        "warning",
        412,
        tuple(place(2 * i + 1) for i in range(412)),
        "412 rows (41 %) are near-duplicates of another row; the largest cluster has 57",
        "--set data.deduplicate=true",
    ),
    DataFinding(
        "refusals",
        "warning",
        19,
        tuple(place(31 * i + 2) for i in range(19)),
        'In 19 rows (1.9 %) the answer refuses: "I am sorry, but as an AI language model I ..."',
        "sft curate support/tickets_2024.jsonl --drop refusals --out clean.jsonl",
    ),
    DataFinding("repeats", "warning", 0, (), "each of 588 distinct rows would be seen 6.1 times"),
    DataFinding(
        "too_long",
        "info",
        6,
        tuple(map(place, (51, 204, 333, 401, 618, 850))),
        "6 rows (0.6 %) are longer than data.max_seq_len and are left out",
        "--set data.max_seq_len=3168",
    ),
)

LENGTHS = Lengths(
    edges=tuple(46.0 * i for i in range(25)),
    all_counts=(
        2,
        31,
        118,
        164,
        151,
        122,
        96,
        71,
        52,
        38,
        30,
        22,
        16,
        11,
        8,
        6,
        4,
        3,
        2,
        1,
        1,
        0,
        1,
        1,
    ),
    trained_counts=(
        88,
        201,
        188,
        141,
        104,
        72,
        51,
        35,
        24,
        17,
        11,
        7,
        5,
        3,
        2,
        1,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
    ),
    all_quantiles=(34, 238, 611, 1104),
    trained_quantiles=(3, 139, 437, 902),
    num_tokens=262_144,
    num_trained=155_912,
    max_seq_len=2048,
)

USAGE = {
    "n": 40,
    "p_values": {f"usage.jsonl:{i}": i / 40 for i in range(1, 41)},
    "uncovered": [
        {"id": f"usage.jsonl:{i}", "p": i / 400, "text": text, "group": group}
        for i, (group, text) in enumerate(
            [
                ("invoice, vat, company", f"Can I get an invoice with VAT for order {i}?")
                for i in range(7)
            ]
            + [("devuelto, pedido", "¿Cuándo llega el dinero de mi pedido devuelto?")] * 3,
            start=1,
        )
    ],
    "groups": [
        {"label": "invoice, vat, company", "ids": [f"usage.jsonl:{i}" for i in range(1, 8)]},
        {"label": "devuelto, pedido", "ids": [f"usage.jsonl:{i}" for i in range(8, 11)]},
    ],
    "classifier": {
        "auc": 0.87,
        "p": 0.001,
        "words": ["invoice", "vat", "company name"],
    },
    "facts": [
        {"name": "length", "train": 61.0, "usage": 58.0, "differs": False, "message": "as long"},
        {
            "name": "system_prompt",
            "train": 1.0,
            "usage": 0.0,
            "differs": True,
            "message": "100% of training rows and 0% of usage prompts have a system prompt",
        },
    ],
    "slices": {},
}

FULL = CheckReport(
    title=FILE,
    num_rows=1000,
    account=(
        AccountLine(929, "used", "", ()),
        AccountLine(50, "val", "", ()),
        AccountLine(
            8, "changed", "its opener 'Sure!' is taken off", (place(8), place(19), place(77))
        ),
        AccountLine(
            4, "dropped", "its prompt is also in data.train", (place(12), place(45), place(90))
        ),
        AccountLine(
            6, "dropped", "too long: max_seq_len is 2048", (place(51), place(204), place(333))
        ),
        AccountLine(3, "bad", "messages[1].content is empty", (place(118), place(340), place(977))),
    ),
    findings=FINDINGS,
    lengths=LENGTHS,
    facts={
        "chat template": "the model's tokenizer, sha256 872be49dbb63",
        "generation prompt": "'<|im_start|>assistant\\n'",
        "stop token": "'<|im_end|>' (2), trained at the end of every turn",
        "stops by itself": "yes, generation_config.json has 2 among eos_token_id",
        "BOS": "one, '<|im_start|>', at the start",
        "tools": "shown as text in the messages, because the template ignores them",
        "mask methods": "prefix differences, and message spans",
        "steps": "87 of 32 examples, 2.97 times each row",
        "validation": "50 rows",
    },
    estimate={
        "rehearsal": "4,096 tokens forward, backward and updated in 9.4 s, loading apart",
        "time": "about 26 min for 87 steps of 8,832 tokens; evaluations take up to 10% more",
        "memory": "5.1 GB at most in the process, of 16.0 GB",
        "disk": "6.5 GB for checkpoints and the model; 212.0 GB are free",
    },
    diversity={
        "distinct rows": "588 of 1,000",
        "distinct 3-grams": "61 %",
        "effective number of topics": "7.4",
    },
    topics=(
        {
            "name": "parcel, delivered, tracking",
            "rows": 388,
            "share": 0.388,
            "examples": [place(1), place(5)],
        },
        {"name": "abo, kündigen, monatsende", "rows": 301, "share": 0.301, "examples": [place(2)]},
        {"name": "account, e-mail, change", "rows": 207, "share": 0.207, "examples": [place(3)]},
        {"name": "sql, orders, query", "rows": 104, "share": 0.104, "examples": [place(4)]},
    ),
    usage=USAGE,
    suspicious=(
        {
            "row": place(17),
            "reason": "the prompt does not help to predict the answer: do they belong together?",
            "loss": 3.418,
            "alone": 3.207,
            "ifd": 1.235,
            "tokens": 88,
        },
        {
            "row": place(640),
            "reason": "far harder than the others: is the answer wrong, cut or garbled?",
            "loss": 6.02,
            "alone": 6.4,
            "ifd": 0.684,
            "tokens": 41,
        },
    ),
    views=views(),
    notes=(
        "contamination: not measured; name public tests with --benchmark FILE",
        "2 rows spell a special token; it is encoded as text there",
    ),
    checks=(
        "unusable",
        "leaks",
        "near_duplicates",
        "refusals",
        "repeats",
        "too_long",
        "empty",
        "echo",
    ),
)

# Only what is always known: the rest was not measured.
BARE = CheckReport(
    title="few.jsonl", num_rows=12, account=(AccountLine(12, "used", "", ()),), findings=()
)

# Every part, but few rows.
SMALL = replace(
    FULL,
    views=FULL.views[:3],
    findings=tuple(replace(finding, rows=finding.rows[:3]) for finding in FINDINGS),
)
