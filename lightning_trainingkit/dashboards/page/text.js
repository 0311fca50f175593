"use strict";
// Format values and names as short text.

function words(value) {
  if (value === null || value === undefined) return "none";
  return typeof value === "number" ? short(value) : String(value);
}

function short(value) {
  return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : String(Number(value.toPrecision(5)));
}

function clipped(text, most = 60) {
  const signs = [...text];
  return signs.length > most ? `${signs.slice(0, most - 1).join("")}…` : text;
}

/** Cut the middle from a long text: names and paths differ at their ends. */
function middle(text, most) {
  const signs = [...text];
  if (signs.length <= most) return text;
  const end = Math.ceil((most - 1) * 0.6);
  return `${signs.slice(0, most - 1 - end).join("")}…${signs.slice(-end).join("")}`;
}

/** The number of characters that all names begin with, up to the end of a folder, in long names of a word; 0 if they are few. */
function sharedStart(names) {
  const [first = ""] = names, other = names.find((name) => name !== first);
  if (other === undefined) return 0;
  let same = 0;
  while (same < first.length && names.every((name) => name[same] === first[same])) same++;
  const long = names.every((name) => name.length > 40);
  const words = first.slice(0, same).search(long ? /[-_/=,: ][^-_/=,: ]*$/ : /[/][^/]*$/) + 1;
  return words > 12 ? words : 0;
}

/** Escape text for Plotly, which interprets tags and entities. */
function plain(text, most = 60) {
  return markupFree(clipped(String(text), most));
}

/** Escaped text, cut in the middle. */
function plainMiddle(text, most) {
  return markupFree(middle(String(text), most));
}

function markupFree(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Seconds below 2 minutes, minutes below 2 hours, otherwise hours. */
function duration(seconds) {
  if (seconds < 120) return `${Number(seconds.toPrecision(3))} s`;
  return seconds < 7200 ? `${Number((seconds / 60).toPrecision(3))} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** The shortest informative end of each dotted name that no other name has: `hidden_size` for `model.encoder.hidden_size`. */
function tails(names) {
  const ends = (name) => {
    const parts = name.split(".");
    return parts.map((_, place) => parts.slice(parts.length - 1 - place).join("."));
  };
  const counts = new Map();
  for (const name of names) for (const end of ends(name)) counts.set(end, (counts.get(end) || 0) + 1);
  return new Map(names.map((name) => [name, ends(name).find((end) => end.length > 3 && counts.get(end) === 1) || name]));
}

function counted(number, one, several = `${one}s`) {
  return `${number} ${number === 1 ? one : several}`;
}
