// Elements and times, for people.

/** An element; what people wrote goes in as `textContent`, never as HTML. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** The moment a timestamp names; null where it names none. */
export function timeOf(timestamp) {
  const time = new Date(timestamp ?? NaN);
  return Number.isNaN(time.getTime()) ? null : time;
}

/** The time of day. */
export function clock(time) {
  return time.toLocaleTimeString(undefined, { hour: "numeric", minute: "2-digit" });
}

/** The day, in full. */
export function dayOf(time) {
  if (isDay(time, 0)) return "Today";
  if (isDay(time, 1)) return "Yesterday";
  return time.toLocaleDateString(undefined, {
    weekday: "long",
    day: "numeric",
    month: "long",
    year: yearOf(time),
  });
}

/** The time of a moment today, the day of an earlier one. */
export function lately(time) {
  if (isDay(time, 0)) return clock(time);
  if (isDay(time, 1)) return "Yesterday";
  return time.toLocaleDateString(undefined, { day: "numeric", month: "short", year: yearOf(time) });
}

function isDay(time, daysAgo) {
  const day = new Date();
  day.setDate(day.getDate() - daysAgo);
  return time.toDateString() === day.toDateString();
}

function yearOf(time) {
  return time.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
}
