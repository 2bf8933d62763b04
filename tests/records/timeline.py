"""A picture of invocations and deliveries: one row a process, time from left to right."""
import datetime
from html import escape

WIDTH, LEFT, ROW, HEAD = 1100, 190, 46, 34


def moment(text):
    """Seconds since 1970 of an event's time or of an arrival; None for what is no time."""
    if isinstance(text, datetime.datetime):
        return text.timestamp()
    if isinstance(text, (int, float)):
        return float(text)
    try:
        return datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def svg(account):
    """Bars are invocations (start to runtimeDone), ticks above them events, ticks below what time they arrived on the stream."""
    rows = {name: [] for name in sorted(account.processes)}
    for name, time, kind, request, arrived in account.moments:
        at = moment(time)
        if at is not None:
            rows[name].append((at, kind, request, moment(arrived)))
    times = [t for row in rows.values() for at, _, _, arrived in row for t in (at, arrived) if t is not None]
    first, last = (min(times), max(times)) if times else (0, 1)
    span = max(last - first, 0.001)

    def x(at):
        return LEFT + (at - first) / span * (WIDTH - LEFT - 20)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEAD + ROW * len(rows) + 10}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="18">{span:.3f} s from {datetime.datetime.fromtimestamp(first, datetime.timezone.utc).isoformat()}: '
        "bars are invocations, blue ticks events, green ticks arrivals on the stream</text>",
    ]
    for index, (name, row) in enumerate(rows.items()):
        y = HEAD + index * ROW
        function = account.processes[name].function or ""
        out.append(f'<text x="8" y="{y + 18}">{escape(name)}</text><text x="8" y="{y + 32}" fill="gray">{escape(function)}</text>')
        starts = {request: at for at, kind, request, _ in row if kind == "platform.start"}
        for at, kind, request, _ in row:
            if kind == "platform.runtimeDone" and request in starts:
                left = x(starts[request])
                width = max(x(at) - left, 1)
                out.append(f'<rect x="{left:.1f}" y="{y + 12}" width="{width:.1f}" height="12" fill="#f5c26b"><title>{escape(str(request))}</title></rect>')
        for at, kind, _, arrived in row:
            out.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{y + 2}" y2="{y + 11}" stroke="#3366cc"><title>{escape(str(kind))}</title></line>')
            if arrived is not None:
                out.append(f'<line x1="{x(arrived):.1f}" x2="{x(arrived):.1f}" y1="{y + 25}" y2="{y + 36}" stroke="#2e8b57"/>')
    return "\n".join(out + ["</svg>", ""])
