// Sets the colours before the first paint, so that nothing flashes. No module: modules come later.
// The choice ("light", "dark" or none: as the system) is kept in localStorage.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const read = () => {
    try {
      return localStorage.getItem("sft-theme");
    } catch {
      return null; // storage is forbidden: as the system
    }
  };
  let choice = read();
  const apply = () => {
    const dark = choice === "dark" || (choice !== "light" && system.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    document.dispatchEvent(new Event("themechange"));
  };
  globalThis.sftTheme = {
    get choice() {
      return choice ?? "system";
    },
    set(value) {
      choice = value === "system" ? null : value;
      try {
        if (choice) localStorage.setItem("sft-theme", choice);
        else localStorage.removeItem("sft-theme");
      } catch {
        // kept for this page only
      }
      apply();
    },
  };
  system.addEventListener("change", apply);
  apply();
})();
