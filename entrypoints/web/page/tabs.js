// The tabs, after the WAI-ARIA Authoring Practices: arrows, Home and End move between them.

/** Makes the tablist work; returns a function that tells the id of the shown panel. */
export function mountTabs(list) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const panelOf = (tab) => document.getElementById(tab.getAttribute("aria-controls"));
  let shown = tabs[0];

  function show(tab, { focus = false } = {}) {
    shown = tab;
    for (const each of tabs) {
      const selected = each === tab;
      each.setAttribute("aria-selected", String(selected));
      each.tabIndex = selected ? 0 : -1;
      panelOf(each).hidden = !selected;
    }
    if (focus) tab.focus();
  }

  function fromAddress() {
    const named = tabs.find((tab) => panelOf(tab).id === location.hash.slice(1));
    if (named) show(named);
  }

  for (const [place, tab] of tabs.entries()) {
    tab.addEventListener("click", () => {
      show(tab);
      history.replaceState(null, "", `#${panelOf(tab).id}`);
    });
    tab.addEventListener("keydown", (event) => {
      const goal = {
        ArrowRight: (place + 1) % tabs.length,
        ArrowLeft: (place + tabs.length - 1) % tabs.length,
        Home: 0,
        End: tabs.length - 1,
      }[event.key];
      if (goal === undefined) return;
      event.preventDefault();
      show(tabs[goal], { focus: true });
    });
  }
  addEventListener("hashchange", fromAddress);
  fromAddress();
  return () => panelOf(shown).id;
}
