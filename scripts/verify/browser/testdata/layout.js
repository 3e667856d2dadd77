// Returns what is wrong with the layout of the page, one line each.
(() => {
  const wrong = [];
  const say = (what, ...more) => wrong.push([what, ...more].join(" "));
  const shown = e => { const s = getComputedStyle(e); return s.display !== "none" && s.visibility !== "hidden" && e.getClientRects().length > 0 };
  const text = e => e.textContent.replace(/\s+/g, " ").trim().slice(0, 60);
  const vw = document.documentElement.clientWidth;

  if (document.documentElement.scrollWidth > innerWidth) say("sideways scroll:", document.documentElement.scrollWidth, "px", [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > vw + 1).slice(0, 3).map(e => e.outerHTML.slice(0, 80)).join(" "));
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("svg, .vh, thead") || !shown(e) || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const range = document.createRange();
    range.selectNodeContents(e);
    const rects = [...range.getClientRects()].filter(r => r.width > 1 && r.height > 1);
    const lines = new Set(rects.map(r => Math.round(r.top / 4))).size;
    let block = e;
    while (getComputedStyle(block).display.startsWith("inline") && block.parentElement) block = block.parentElement;
    if (lines > 1 && block.getBoundingClientRect().width < 8 * parseFloat(getComputedStyle(e).fontSize) && !e.closest(".week, .st")) say("narrow:", e.tagName, text(e));
    if (e.getBoundingClientRect().right > vw + 1) say("outside:", e.tagName, text(e));
  }
  for (const h of document.querySelectorAll(".strip thead th")) if (shown(h) && (r => (r.selectNodeContents(h), r.getClientRects().length))(document.createRange()) > 1) { say("a heading of hours breaks:", text(h)); break }
  const pen = document.createElement("canvas").getContext("2d");
  for (const d of document.querySelectorAll("td[data-of]")) {
    const label = getComputedStyle(d, "::before"), column = parseFloat(getComputedStyle(d).gridTemplateColumns);
    if (label.content === "none" || getComputedStyle(d).display !== "grid" || label.overflowWrap === "anywhere") continue;
    pen.font = label.font;
    for (const word of d.dataset.of.split(" ")) if (pen.measureText(word).width > column + 1) say("label covers its value:", word);
  }
  for (const t of document.querySelectorAll("table")) {
    const a = t.getBoundingClientRect().width, b = t.caption ? t.caption.getBoundingClientRect().width : 0;
    if (Math.abs(a - b) > 5) say("caption:", b, "of", a, "px:", t.caption ? text(t.caption) : "none");
  }

  // https://www.w3.org/TR/WCAG22/#contrast-minimum: 4.5 to 1 for text, 3 to 1 for symbols.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255] };
  const lum = c => { const f = c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * f[0] + .7152 * f[1] + .0722 * f[2] };
  const ratio = (a, b) => { const [x, y] = [lum(a), lum(b)]; return (Math.max(x, y) + .05) / (Math.min(x, y) + .05) };
  for (const e of document.querySelectorAll("body *")) {
    const svg = ["text", "tspan"].includes(e.tagName), use = e.tagName === "use";
    if (e.closest(".defs") || e.tagName === "title" || !shown(e) || !(use || [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))) continue;
    let ground = null;
    if (e.classList.contains("in")) ground = rgb(getComputedStyle(e.parentElement.querySelector("rect")).fill);
    for (let p = e; p && !ground; p = p.parentElement) { const c = rgb(getComputedStyle(p).backgroundColor); if (c[3] > .99) ground = c }
    const k = ratio(rgb(svg ? getComputedStyle(e).fill : getComputedStyle(e).color), ground || [255, 255, 255]);
    if (k < (use ? 3 : 4.5)) say("contrast", k.toFixed(2) + ":", e.tagName, text(e) || e.getAttribute("href"));
  }

  // The timeline: labels, and the places of marks.
  const labels = [...document.querySelectorAll(".lanes text, .lanes li span")].filter(e => shown(e) && e.textContent.trim());
  const box = e => { const r = e.getBoundingClientRect(); return { l: r.left, r: r.right, t: r.top + 2, b: r.bottom - 2 } };
  labels.forEach((a, i) => labels.slice(i + 1).forEach(b => {
    const [x, y] = [box(a), box(b)];
    if (x.l < y.r - 1 && y.l < x.r - 1 && x.t < y.b && y.t < x.b) say("labels overlap:", text(a), "|", text(b));
  }));
  for (const svg of document.querySelectorAll("svg[data-from]")) {
    const from = +svg.dataset.from, to = +svg.dataset.to, width = svg.getBoundingClientRect().width;
    for (const e of svg.querySelectorAll("[data-at]")) {
      const mark = e.tagName === "line" ? e : e.querySelector(":scope > svg, :scope > line.ln, :scope > rect");
      const x = (mark.x || mark.x1).baseVal.value, want = width * (+e.dataset.at - from) / (to - from);
      if (Math.abs(x - want) > 1) say("mark at", x.toFixed(1), "px, its time is at", want.toFixed(1), text(e));
      if (x < -1 || x > width + 1) say("mark outside:", text(e));
    }
  }

  // Names, ids, landmarks, and words next to colours.
  const names = {};
  for (const a of document.querySelectorAll("a, summary, button, select")) {
    const name = (a.getAttribute("aria-label") || (a.labels && a.labels[0] ? a.labels[0].textContent : a.textContent)).replace(/\s+/g, " ").trim();
    if (!name) say("no name:", a.outerHTML.slice(0, 80));
    if (name in names && names[name] !== a.getAttribute("href")) say("two have one name:", name);
    names[name] = a.getAttribute("href");
  }
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  for (const id of ids.filter((id, i) => ids.indexOf(id) !== i)) say("two have one id:", id);
  for (const u of document.querySelectorAll("use")) if (!document.querySelector(u.getAttribute("href"))) say("no symbol", u.getAttribute("href"));
  for (const s of document.querySelectorAll("section")) if (!document.getElementById(s.getAttribute("aria-labelledby"))) say("section without heading:", text(s));
  for (const e of document.querySelectorAll(".st")) if (!/[a-z]{2,}/.test(e.textContent)) say("colour alone:", e.outerHTML.slice(0, 80));
  for (const e of document.querySelectorAll("svg[role=img]")) if (!e.getAttribute("aria-label")) say("drawing without words:", e.outerHTML.slice(0, 80));
  for (const [what, n] of [["h1", 1], ["main", 1], ["header", 1], ["footer", 1]]) if (document.querySelectorAll(what).length !== n) say(document.querySelectorAll(what).length, what);
  if (document.querySelector("script, iframe, img, object, link, [onclick], [onerror]")) say("something foreign in the page");
  return [...new Set(wrong)].slice(0, 12);
})()
