// Results as files.

/**
 * Puts buttons into `place` that save what was found; returns a function that is told whether there
 * is anything to save.
 *
 * @param place the element for the buttons.
 * @param files for each button its label and a function that makes {name, type, text}.
 */
export function mountSaving(place, files) {
  const group = document.createElement("div");
  group.className = "saving";
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Save the result");
  for (const [label, make] of Object.entries(files)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = label;
    button.addEventListener("click", () => {
      const { name, type, text } = make();
      save(new Blob([text], { type }), name);
    });
    group.append(button);
  }
  group.hidden = true;
  place.append(group);
  return (found) => {
    group.hidden = found === null;
  };
}

/** A table as CSV (RFC 4180), the first row its header. */
export function csv(name, rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const text = rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
  return { name: `${name}.csv`, type: "text/csv", text };
}

/** A value as JSON. */
export const json = (name, value) => ({
  name: `${name}.json`,
  type: "application/json",
  text: `${JSON.stringify(value, null, 2)}\n`,
});

/** Offer a blob as a download. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
