/* The usage explorer's bars, stacked, in the colours of the theme. A click leads to the calls behind a part. */
"use strict";

const usageCanvas = document.getElementById("usage-chart");
const usage = JSON.parse(document.getElementById("usage-chart-data")?.textContent ?? "null");
let usageChart = null;

function themed(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function compact(value) {
  return new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value);
}

function figure(text) {
  if (!usage.isCost) return Number(text).toLocaleString("en");
  const [whole, fraction = ""] = text.split(".");
  return `$${Number(whole).toLocaleString("en")}.${fraction.replace(/0+$/, "").padEnd(2, "0")}`;
}

function bars(part) {
  return {
    label: part.name,
    data: part.values.map(Number),
    backgroundColor: themed(`--bl-series-${part.colour}`),
    borderColor: themed("--gw-card"),
    borderWidth: usage.series.length > 1 ? { top: 1 } : 0,
    maxBarThickness: 46,
    minBarLength: 0,
  };
}

/* On a phone the table's own colours are the legend: there is no room for another. */
const isNarrow = window.matchMedia("(max-width: 767px)");

/* The address of a part: its calls on the bar's days, or the page of the bar alone. */
function addressOf(part, bucket) {
  if (!part.url) return bucket.url;
  const address = new URL(part.url, window.location.href);
  address.searchParams.set("first", bucket.days[0]);
  address.searchParams.set("last", bucket.days[1]);
  return address.href;
}

function drawUsage() {
  usageChart?.destroy();
  const quiet = themed("--gw-quiet");
  window.Chart.defaults.font.family = themed("--font-family-primary");
  usageChart = new window.Chart(usageCanvas, {
    type: "bar",
    data: { labels: usage.buckets.map((bucket) => bucket.label), datasets: usage.series.map(bars) },
    options: {
      maintainAspectRatio: false,
      animation: false,
      onClick: (event, found) => {
        if (found.length) window.location.assign(addressOf(usage.series[found[0].datasetIndex], usage.buckets[found[0].index]));
      },
      onHover: (event, found) => { event.native.target.style.cursor = found.length ? "pointer" : "default"; },
      plugins: {
        legend: { display: usage.series.length > 1 && !isNarrow.matches, position: "bottom", labels: { color: quiet, boxWidth: 12, boxHeight: 12, padding: 12 } },
        tooltip: {
          callbacks: {
            title: (items) => usage.buckets[items[0].dataIndex].name,
            label: (item) => `${item.dataset.label}: ${figure(usage.series[item.datasetIndex].values[item.dataIndex])}`,
          },
        },
      },
      scales: {
        x: { stacked: true, grid: { display: false }, border: { color: themed("--gw-line") }, ticks: { color: quiet, maxRotation: 0, autoSkipPadding: 12 } },
        y: {
          stacked: true,
          beginAtZero: true,
          border: { display: false },
          grid: { color: themed("--gw-line") },
          ticks: { color: quiet, maxTicksLimit: 5, precision: usage.isCost ? undefined : 0, callback: (value) => (usage.isCost ? `$${compact(value)}` : compact(value)) },
        },
      },
    },
  });
}

if (usageCanvas && usage) {
  drawUsage();
  new MutationObserver(drawUsage).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawUsage);
  isNarrow.addEventListener("change", drawUsage);
}
