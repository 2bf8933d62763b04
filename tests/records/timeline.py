"""A picture of invocations and deliveries: one row a process, time from left to right."""
import datetime
from html import escape

WIDTH, LEFT, RIGHT, ROW, HEAD = 1100, 190, 20, 46, 70
# Seconds from one line of the axis to the next; the first that gives no more than so many lines is taken.
STEPS = [base * scale for scale in (0.001, 0.01, 0.1, 1) for base in (1, 2, 5)] + [
    10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 7 * 86400, 30 * 86400, 365 * 86400,
]
MOST_LINES = 10
# The colours differ in lightness, too, so that they can be told apart without seeing colour.
STYLE = """
  text { font: 11px sans-serif; fill: #1f2328 } .page { fill: #ffffff } .grey { fill: #59636e } .axis { stroke: #d1d9e0 }
  .kept { fill: #bf6a02 } .thinned { fill: #d1d9e0; stroke: #818b98 } .event { stroke: #0969da } .arrival { stroke: #1a7f37; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .page { fill: #0d1117 } .grey { fill: #9198a1 } .axis { stroke: #3d444d }
    .kept { fill: #f0a040 } .thinned { fill: #2a313c; stroke: #656c76 } .event { stroke: #4493f8 } .arrival { stroke: #3fb950 }
  }
"""


# The end of the last year that has four digits.
LATEST = 253402300800


def moment(text):
    """Seconds since 1970 of an event's time or of an arrival; None for what is no time."""
    try:
        if not isinstance(text, (datetime.datetime, int, float)):
            text = datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        at = float(text.timestamp() if isinstance(text, datetime.datetime) else text)
    except (ValueError, OverflowError):
        return None
    return at if 0 <= at < LATEST else None


def svg(account):
    """Bars are invocations, kept or thinned out; ticks above them events, ticks below what time they arrived on the stream."""
    rows = {}
    for one in account.moments:
        at = moment(one.time)
        if at is not None:
            rows.setdefault(one.process, []).append((at, one, moment(one.arrived)))
    # In the order in which they began.
    rows = dict(sorted(rows.items(), key=lambda row: min(at for at, _, _ in row[1])))
    times = [time for row in rows.values() for at, _, arrived in row for time in (at, arrived) if time is not None]
    first, last = (min(times), max(times)) if times else (0, 1)
    last = max(last, first + 0.001)
    height = HEAD + ROW * len(rows) + 10

    def x(at):
        return LEFT + (max(at, first) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"><style>{STYLE}</style>',
        '<rect class="page" width="100%" height="100%"/>',
        *legend(any(arrived for row in rows.values() for _, _, arrived in row)),
        *axis(first, last, height, x),
    ]
    for index, (name, row) in enumerate(rows.items()):
        y, process = HEAD + index * ROW, account.processes[name]
        out.append(f'<text x="8" y="{y + 18}">{escape(name)}</text><text class="grey" x="8" y="{y + 32}">{escape(process.function or "")}</text>')
        out += bars(row, process, y, x)
        for at, one, arrived in row:
            out.append(f'<path class="event" d="M{x(at):.1f} {y + 2}v9"><title>{escape(str(one.type))}</title></path>')
            if arrived is not None:
                out.append(f'<path class="arrival" d="M{x(arrived):.1f} {y + 25}v9"/>')
    return "\n".join(out + ["</svg>", ""])


def bars(row, process, y, x):
    """A kept invocation reaches from its start to its runtimeDone; of one that was thinned out, the summary says how long it was."""
    starts = {}
    for at, one, _ in sorted(row, key=lambda moment: moment[0]):
        if one.type == "platform.start":
            starts[one.request] = at
            continue
        if one.type == "platform.runtimeDone" and one.request in starts:
            begun, state = starts.pop(one.request), "kept"
            why = next((each["reason"] for each in process.summaries.get(one.request, []) if each["kept"]), None)
        elif one.summary and not one.summary["kept"]:
            begun, state, why = at - one.summary["durationMs"] / 1000, "thinned", "thinned out"
        else:
            continue
        title = escape(", ".join(str(word) for word in (one.request, why) if word))
        yield f'<rect class="{state}" x="{x(begun):.1f}" y="{y + 12}" width="{max(x(at) - x(begun), 1):.1f}" height="12"><title>{title}</title></rect>'


def legend(with_arrivals):
    yield '<rect class="kept" x="8" y="9" width="16" height="12"/><text x="30" y="19">invocation, kept</text>'
    yield '<rect class="thinned" x="135" y="9" width="16" height="12"/><text x="157" y="19">thinned out</text>'
    yield '<path class="event" d="M245 10v9"/><text x="253" y="19">event</text>'
    if with_arrivals:
        yield '<path class="arrival" d="M305 10v9"/><text x="313" y="19">arrival on the stream</text>'


def axis(first, last, height, x):
    """Lines at round times, with the date at the left."""
    step = next((step for step in STEPS if (last - first) / step <= MOST_LINES), STEPS[-1])
    day = datetime.datetime.fromtimestamp(first, datetime.timezone.utc)
    yield f'<text class="grey" x="8" y="{HEAD - 16}">{day:%Y-%m-%d} UTC, {last - first:.3f} s</text>'
    number = -int(-first // step)
    while number * step <= last:
        at = number * step
        # Thousandths as whole numbers: a sum of floats would show as 59.999.
        time = datetime.datetime.fromtimestamp(round(at * 1000) // 1000, datetime.timezone.utc)
        label = f"{time:%m-%d}" if step >= 86400 else f"{time:%H:%M:%S}" + (f".{round(at * 1000) % 1000:03}" if step < 1 else "")
        # Within the picture also at its right edge.
        anchor, place = ("end", WIDTH - 2) if x(at) > WIDTH - 40 else ("middle", x(at))
        yield f'<path class="axis" d="M{x(at):.1f} {HEAD - 10}V{height - 8}"/><text class="grey" text-anchor="{anchor}" x="{place:.1f}" y="{HEAD - 16}">{label}</text>'
        number += 1
