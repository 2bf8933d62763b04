// What a reader of the demo's page gets to see, frame by frame: the problems, and what is drawn. Written into #report.
const LEAST_TEXT_CONTRAST = 4.5, LEAST_MARK_CONTRAST = 3, LEAST_FONT = 12;

addEventListener("load", () => {
  const report = [...document.querySelectorAll("iframe")].map((frame) => look(frame.contentWindow));
  document.querySelector("#report").textContent = JSON.stringify(report);
});

function look(view) {
  const page = view.document, all = (selector) => [...page.querySelectorAll(selector)];
  const problems = [];
  // Closed as it comes, and with every event's line open.
  const closed = page.documentElement.scrollHeight;
  inspect(view, problems, "");
  all("details").forEach((each) => { each.open = true; });
  inspect(view, problems, " (lines open)");
  const number = (element) => Number(element.dataset.request);
  const ground = view.getComputedStyle(page.documentElement).backgroundColor;
  return {
    width: view.innerWidth, height: closed, problems, ground, dark: luminance(colour(ground)) < 0.2,
    text: page.body.innerText,
    events: all("[data-event]").map((each) => ({
      id: each.dataset.event, invocation: each.closest("article").dataset.invocation, line: each.querySelector("pre").textContent,
      ...Object.fromEntries(["clock", "kind", "number"].map((name) => [name, each.querySelector(`.${name}`).innerText])),
    })),
    invocations: all("article").map((each) => ({ id: each.dataset.invocation, bill: each.querySelector(".bill")?.innerText ?? "" })),
    steps: all(".step").length,
    puts: all("[data-put]").map((each) => Number(each.dataset.put)),
    dots: all("[data-request]").map(number),
    failedDots: all("[data-request].failed").map(number),
    retries: all(".track .retry").length,
  };
}

function inspect(view, problems, state) {
  const page = view.document, width = view.innerWidth;
  const say = (what, element) => problems.push(`${what}${state}: ${describe(element)}`);
  if (page.documentElement.scrollWidth > width) {
    problems.push(`page is wider than its window${state}: ${page.documentElement.scrollWidth} > ${width}`);
  }
  for (const element of page.querySelectorAll("body *")) {
    const style = view.getComputedStyle(element), box = element.getBoundingClientRect();
    if (box.left < -0.5 || box.right > width + 0.5) say(`reaches out of the page (${box.left} to ${box.right})`, element);
    if (style.overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1) say("cut off", element);
    if (element.matches(".bar, .dot, .tick")) mark(view, element, style, box, say);
  }
  overlaps(view, texts(view, say), say);
}

// A mark of a chart must be there, and stand out from what is behind it.
function mark(view, element, style, box, say) {
  if (box.width < 1 || box.height < 1) say("mark of no size", element);
  const painted = parseFloat(style.borderTopWidth) > 0 ? style.borderTopColor : style.backgroundColor;
  const found = contrast(colour(painted), ground(view, element.parentElement));
  if (found < LEAST_MARK_CONTRAST) say(`contrast of mark ${found.toFixed(2)}`, element);
}

// Every line of text that is not in a closed event: its box, after its colours and its size were looked at.
function texts(view, say) {
  const walker = view.document.createTreeWalker(view.document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.textContent.trim() || element.closest("details:not([open]) > pre")) continue;
    const range = view.document.createRange();
    range.selectNodeContents(node);
    const boxes = [...range.getClientRects()].filter((box) => box.width > 0 && box.height > 0);
    const style = view.getComputedStyle(element);
    if (!boxes.length || style.visibility !== "visible" || Number(style.opacity) < 1) say("not to be seen", element);
    if (parseFloat(style.fontSize) < LEAST_FONT) say(`small text (${style.fontSize})`, element);
    const ratio = contrast(colour(style.color), ground(view, element));
    if (ratio < LEAST_TEXT_CONTRAST) say(`contrast of text ${ratio.toFixed(2)}`, element);
    found.push(...boxes.map((box) => ({ box, element })));
  }
  return found;
}

function overlaps(view, found, say) {
  found.sort((one, other) => one.box.top - other.box.top);
  found.forEach(({ box, element }, index) => {
    for (const other of found.slice(index + 1)) {
      if (other.box.top > box.bottom) break;
      const across = Math.min(box.right, other.box.right) - Math.max(box.left, other.box.left);
      // Boxes of text are a little higher than its letters.
      const down = Math.min(box.bottom, other.box.bottom) - other.box.top;
      if (across > 1 && down > 4) say(`covers ${describe(other.element)}`, element);
    }
  });
}

function describe(element) {
  return `<${element.localName} class="${element.className}"> ${JSON.stringify(element.textContent.trim().slice(0, 50))}`;
}

// The nearest colour behind an element; all of them are opaque.
function ground(view, element) {
  for (let at = element; at; at = at.parentElement) {
    const found = colour(view.getComputedStyle(at).backgroundColor);
    if (found[3] > 0) return found;
  }
  return [255, 255, 255, 1];
}

function colour(text) {
  const numbers = text.match(/[\d.]+/g).map(Number);
  return numbers.length === 3 ? [...numbers, 1] : numbers;
}

// As WCAG defines both.
function luminance([red, green, blue]) {
  const [r, g, b] = [red, green, blue].map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one, other) {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}
