// Making elements, and formatting times for people.

/** Make an element. Text that users wrote must be set as `textContent`, never as HTML. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** Make `wanted` the children of `parent`, and move only those that are elsewhere. */
export function putInto(parent, wanted) {
  const isWanted = new Set(wanted);
  for (const element of [...parent.children]) if (!isWanted.has(element)) element.remove();
  let present = parent.firstElementChild;
  for (const element of wanted) {
    if (element === present) present = present.nextElementSibling;
    else parent.insertBefore(element, present);
  }
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

/** Return a duration in a unit that suits it, such as "23 s" or "5 min". */
export function formatDuration(seconds) {
  if (seconds < 60) return `${seconds} s`;
  return seconds < 3600 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3600)} h`;
}

/** Return how long ago `time` was, in words such as "Today", "Previous 7 days" or "May 2025". */
export function formatPeriod(time) {
  if (time > new Date() || isDay(time, 0)) return "Today";
  if (isDay(time, 1)) return "Yesterday";
  for (const days of [7, 30]) {
    const start = new Date();
    start.setDate(start.getDate() - days);
    if (time >= start.setHours(0, 0, 0, 0)) return `Previous ${days} days`;
  }
  return time.toLocaleDateString(undefined, { month: "long", year: yearUnlessCurrent(time) });
}

function isDay(time, daysAgo) {
  const day = new Date();
  day.setDate(day.getDate() - daysAgo);
  return time.toDateString() === day.toDateString();
}

function yearUnlessCurrent(time) {
  return time.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
}
