"use strict";

// Times in the zone of the browser; the server writes its own.
const today = new Intl.DateTimeFormat(undefined, {hour: "2-digit", minute: "2-digit"});
const other = new Intl.DateTimeFormat(undefined, {day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit"});
const full = new Intl.DateTimeFormat(undefined, {dateStyle: "full", timeStyle: "long"});

function showTimes(root) {
  for (const each of root.querySelectorAll("time[datetime]:not([data-shown])")) {
    const moment = new Date(each.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    each.dataset.shown = "";
    each.title = full.format(moment);
    if (each.dataset.ago === undefined) {
      const isToday = moment.toDateString() === new Date().toDateString();
      each.textContent = (isToday ? today : other).format(moment);
    }
  }
}

// The zone of a date that is entered: as it is then and there.
function setZone(input) {
  const moment = new Date(input.value);
  const minutes = Number.isNaN(moment.getTime()) ? 0 : -moment.getTimezoneOffset();
  const [hours, rest] = [Math.trunc(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  const pad = (number) => String(number).padStart(2, "0");
  document.getElementById(input.dataset.zone).value = `${minutes < 0 ? "-" : "+"}${pad(hours)}:${pad(rest)}`;
}

document.addEventListener("change", (event) => {
  if (event.target.dataset.zone) setZone(event.target);
  if (event.target.dataset.all) {
    for (const each of document.querySelectorAll(event.target.dataset.all)) each.checked = event.target.checked;
  }
});

document.addEventListener("htmx:afterSwap", (event) => {
  showTimes(event.target);
  const dialog = document.getElementById("dialog");
  if (event.target.id === "dialog-body" && !dialog.open) dialog.showModal();
});

// A question that cannot be asked is a page of its own, which says why.
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.target && event.detail.target.id === "dialog-body") {
    window.location.assign(event.detail.pathInfo.requestPath);
  }
});

document.addEventListener("click", (event) => {
  const back = event.target.closest("[data-back]");
  const dialog = document.getElementById("dialog");
  if (back && dialog && dialog.open) {
    event.preventDefault();
    dialog.close();
  } else if (back && window.history.length > 1) {
    event.preventDefault();
    window.history.back();
  }
  if (!event.target.closest(".box")) closeSuggestions();
});

function closeSuggestions() {
  const list = document.getElementById("suggestions");
  if (list) list.replaceChildren();
}

// In the box: down and up go through what was found, escape closes it. "/" goes to the box from anywhere.
document.addEventListener("keydown", (event) => {
  const box = document.getElementById("q");
  const inBox = event.target.closest && event.target.closest(".box");
  if (event.key === "/" && box && !event.target.closest("input, textarea, select, dialog")) {
    event.preventDefault();
    box.focus();
    box.select();
  } else if (event.key === "Enter" && event.target.closest && event.target.closest("tr.edit") && event.target.matches("input")) {
    event.preventDefault();
    event.target.closest("tr.edit").querySelector("[hx-post]").click();
  } else if (inBox && event.key === "Escape") {
    closeSuggestions();
    box.focus();
  } else if (inBox && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    const links = [box, ...document.querySelectorAll("#suggestions a")];
    const next = links.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    if (links[next]) {
      event.preventDefault();
      links[next].focus();
    }
  }
});

document.addEventListener("DOMContentLoaded", () => showTimes(document));
