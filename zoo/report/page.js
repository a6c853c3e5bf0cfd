"use strict";

const CONFIG = {
  responsive: true,
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  typesetMath: false,
  displayModeBar: "hover",
  modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]], // not that which shares a chart
};
const PAPER = 620; // pixels that a chart may be wide on A4 and on Letter

const NARROW = 640; // pixels below which a heat map's names are broken into lines, and its scale is above it

function narrow(data, layout) {
  for (const { colorbar } of data.filter((trace) => trace.colorbar)) {
    Object.assign(colorbar, { orientation: "h", y: 1, yanchor: "bottom", title: { ...colorbar.title, side: "top" } });
    layout.yaxis.ticktext = layout.yaxis.ticktext.map((name) => name.replace(/(.{9,}?) /g, "$1<br>"));
  }
}

// One after the other, so that the page can be read and scrolled meanwhile.
function draw(charts) {
  const [chart, ...others] = charts;
  if (!chart) {
    document.documentElement.dataset.drawn = "all";
    return;
  }
  const { data, layout } = JSON.parse(chart.querySelector("script").textContent);
  const config = { ...CONFIG };
  if (matchMedia("(pointer: coarse)").matches) { // a finger scrolls the page, and a tap shows what is under it
    config.displayModeBar = layout.dragmode = false;
    layout.xaxis.fixedrange = layout.yaxis.fixedrange = true;
  }
  const plot = chart.querySelector(".plot");
  if (plot.clientWidth < NARROW) narrow(data, layout);
  Plotly.newPlot(plot, data, layout, config).then(() => setTimeout(draw, 0, others));
}

function toggle(button) {
  const plot = button.closest(".chart").querySelector(".plot");
  const shown = button.getAttribute("aria-pressed") !== "true";
  const traces = [];
  plot.data.forEach((trace, index) => {
    if (trace.legendgroup === button.dataset.group) traces.push(index);
  });
  button.setAttribute("aria-pressed", shown);
  Plotly.restyle(plot, { visible: shown }, traces);
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => toggle(button));
}

// In a narrow window, the rows of the verdict's tables become blocks. Other tables that do not fit scroll sideways, and
// say so.
function fit(box) {
  const scroll = box.querySelector(".scroll");
  box.classList.remove("stacked", "wide");
  const kind = box.closest(".verdict") ? "stacked" : "wide";
  if (scroll.scrollWidth > scroll.clientWidth) box.classList.add(kind);
  box.querySelector(".hint").hidden = scroll.scrollWidth <= scroll.clientWidth;
  shade(box, scroll);
}

function shade(box, scroll) {
  const left = scroll.scrollWidth - scroll.clientWidth - scroll.scrollLeft;
  box.classList.toggle("more", box.classList.contains("wide") && left > 1);
}

const changed = new ResizeObserver((entries) => requestAnimationFrame(() => {
  for (const box of new Set(entries.map((entry) => entry.target.closest(".box")))) fit(box);
}));
for (const box of document.querySelectorAll(".box")) {
  const scroll = box.querySelector(".scroll");
  fit(box);
  scroll.addEventListener("scroll", () => shade(box, scroll));
  changed.observe(scroll);
  changed.observe(scroll.firstElementChild);
}

const drawn = () => document.querySelectorAll(".plot.js-plotly-plot");
addEventListener("beforeprint", () => drawn().forEach((plot) => Plotly.relayout(plot, { autosize: false, width: PAPER })));
addEventListener("afterprint", () => drawn().forEach((plot) => Plotly.relayout(plot, { autosize: true, width: null })));

draw([...document.querySelectorAll(".chart")]);
