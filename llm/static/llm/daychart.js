/* Calls (bars) and cost (line) of the last days, in the colours of the theme. */
"use strict";

const canvas = document.getElementById("day-chart");
let points = readPoints(document);
let chart = null;

function readPoints(page) {
  return JSON.parse(page.getElementById("day-chart-points")?.textContent ?? "[]");
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function dayLabel(day) {
  return new Date(`${day}T00:00Z`).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
}

function shortCount(value) {
  return new Intl.NumberFormat("en", { notation: "compact" }).format(value);
}

function axis(position, title, format, showsGrid) {
  return {
    position,
    beginAtZero: true,
    grace: "5%",
    border: { display: false },
    grid: { display: showsGrid, color: colour("--gw-line") },
    title: { display: true, text: title, color: colour("--gw-quiet"), font: { size: 11 } },
    ticks: { color: colour("--gw-quiet"), maxTicksLimit: 5, precision: position === "left" ? 0 : undefined, callback: format },
  };
}

function drawChart() {
  chart?.destroy();
  window.Chart.defaults.font.family = colour("--font-family-primary");
  chart = new window.Chart(canvas, {
    data: {
      labels: points.map((point) => dayLabel(point.day)),
      datasets: [
        ...(points.some((point) => point.cost !== null) ? [{ type: "line", label: "Cost", yAxisID: "cost", data: points.map((point) => point.cost === null ? null : Number(point.cost)), borderColor: colour("--gw-chart-line"), backgroundColor: colour("--gw-chart-line"), borderWidth: 2, pointRadius: points.length > 40 ? 0 : 2, tension: 0 }] : []),
        { type: "bar", label: "Calls", yAxisID: "calls", data: points.map((point) => point.calls), backgroundColor: colour("--gw-chart-bar"), borderRadius: 3, maxBarThickness: 34 },
      ],
    },
    options: {
      maintainAspectRatio: false,
      animation: false,
      interaction: { mode: "index", intersect: false },
      plugins: {
        legend: { position: "bottom", labels: { color: colour("--gw-quiet"), boxWidth: 12, boxHeight: 12, padding: 14 } },
        tooltip: {
          callbacks: {
            title: (items) => points[items[0].dataIndex].day,
            label: (item) => (item.dataset.yAxisID === "cost" ? `Cost: $${points[item.dataIndex].cost}` : `Calls: ${item.raw.toLocaleString("en")}`),
          },
        },
      },
      scales: {
        x: { grid: { display: false }, border: { color: colour("--gw-line") }, ticks: { color: colour("--gw-quiet"), maxRotation: 0 } },
        calls: axis("left", "Calls", shortCount, true),
        ...(points.some((point) => point.cost !== null) && { cost: axis("right", "USD", (value) => `$${shortCount(value)}`, false) }),
      },
    },
  });
}

/* Where there are too many calls to sum at once, the server sums some days a visit: ask until it has them all. */
async function awaitAllDays(triesLeft) {
  const month = document.getElementById("gw-month");
  if (!month || month.dataset.complete === "yes" || !triesLeft) return;
  const reply = await fetch(window.location.href, { credentials: "same-origin" });
  if (!reply.ok) return;
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  const fresh = page.getElementById("gw-month");
  if (!fresh) return;
  month.replaceWith(document.adoptNode(fresh));
  points = readPoints(page);
  drawChart();
  setTimeout(() => awaitAllDays(triesLeft - 1), 250);
}

if (canvas && points.length) {
  drawChart();
  awaitAllDays(60);
  new MutationObserver(drawChart).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawChart);
}
