// Making elements, and formatting times for people.

/** Make an element. Text that users wrote must be set as `textContent`, never as HTML. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** Return the timestamp as a Date, or null if it is not valid. */
export function parseTime(timestamp) {
  const time = new Date(timestamp ?? NaN);
  return Number.isNaN(time.getTime()) ? null : time;
}

/** Return the time of day, such as "9:41 AM". */
export function formatTimeOfDay(time) {
  return time.toLocaleTimeString(undefined, { hour: "numeric", minute: "2-digit" });
}

/** Return the day in full, such as "Monday, June 1". */
export function formatDay(time) {
  if (isDay(time, 0)) return "Today";
  if (isDay(time, 1)) return "Yesterday";
  return time.toLocaleDateString(undefined, {
    weekday: "long",
    day: "numeric",
    month: "long",
    year: yearUnlessCurrent(time),
  });
}

/** Return the time of day if `time` is today, else the day. */
export function formatRecent(time) {
  if (isDay(time, 0)) return formatTimeOfDay(time);
  if (isDay(time, 1)) return "Yesterday";
  return time.toLocaleDateString(undefined, { day: "numeric", month: "short", year: yearUnlessCurrent(time) });
}

function isDay(time, daysAgo) {
  const day = new Date();
  day.setDate(day.getDate() - daysAgo);
  return time.toDateString() === day.toDateString();
}

function yearUnlessCurrent(time) {
  return time.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
}
