"use strict";

// The chart: decisions a second of the last hour.
const chartBox = document.getElementById("chart");
let chart = null;

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawChart(columns) {
  const size = {width: chartBox.clientWidth, height: chartBox.clientHeight};
  const axis = {stroke: color("--quiet"), grid: {stroke: color("--line"), width: 1}, ticks: {show: false}, font: "12px system-ui"};
  const line = (stroke, fill) => ({stroke, fill, width: 1.5, points: {show: false}});
  chart = new uPlot({
    ...size,
    legend: {show: false},
    cursor: {show: false},
    scales: {y: {range: (_, low, high) => [0, Math.max(1, high * 1.15)]}},
    axes: [{...axis, grid: {show: false}}, {...axis, size: 44}],
    series: [{}, line(color("--fill"), color("--fill") + "22"), line(color("--full"), color("--full") + "22")],
  }, columns, chartBox);
}

async function updateChart() {
  const answer = await fetch("/ui/now/rates", {redirect: "error"});
  if (!answer.ok) return;
  const columns = await answer.json();
  if (chart === null) drawChart(columns);
  else chart.setData(columns);
  const most = Math.max(0, ...columns[1]);
  chartBox.setAttribute("aria-label", `Decisions a second in the last hour: at most ${most.toFixed(1)}, now ${columns[1].at(-1).toFixed(1)}`);
}

function redrawChart() {
  if (chart === null) return;
  const columns = chart.data;
  chart.destroy();
  drawChart(columns);
}

// The live feed.
const live = document.getElementById("live");
const list = document.getElementById("live-list");
const state = document.getElementById("live-state");
const pause = document.getElementById("live-pause");
const filter = document.getElementById("live-filter");
const MOST = 100;
let feed = null;

function openFeed() {
  if (feed !== null) feed.close();
  feed = new EventSource(`${live.dataset.url}?${new URLSearchParams(new FormData(filter))}`);
  feed.addEventListener("open", () => { state.textContent = "connected"; });
  feed.addEventListener("error", () => { state.textContent = "not connected"; });
  feed.addEventListener("decisions", (event) => showDecisions(event.data));
}

function showDecisions(data) {
  const end = data.indexOf("\n");
  const more = Number(end < 0 ? data : data.slice(0, end));
  if (end >= 0) list.insertAdjacentHTML("afterbegin", data.slice(end + 1));
  if (more > 0) {
    const note = document.createElement("li");
    note.className = "more";
    note.textContent = `and ${more} more in the same second`;
    list.insertBefore(note, list.children[50] || null);
  }
  while (list.children.length > MOST) list.lastElementChild.remove();
  if (end >= 0) {
    htmx.process(list);
    showTimes(list);
  }
}

function setPause(isPaused) {
  pause.setAttribute("aria-pressed", String(isPaused));
  pause.textContent = isPaused ? "Go on" : "Pause";
  if (isPaused && feed !== null) {
    feed.close();
    feed = null;
    state.textContent = "paused";
  } else if (!isPaused) {
    openFeed();
  }
}

pause.addEventListener("click", () => setPause(feed !== null));
filter.addEventListener("submit", (event) => event.preventDefault());
filter.addEventListener("change", () => {
  list.replaceChildren();
  setPause(false);
});

window.addEventListener("resize", () => {
  if (chart !== null) chart.setSize({width: chartBox.clientWidth, height: chartBox.clientHeight});
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawChart);
updateChart();
setInterval(updateChart, 10000);
openFeed();
