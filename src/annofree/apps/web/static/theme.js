// The colors that were chosen, set before anything is painted; without a choice the system's.
const chosen = localStorage.getItem("annofree-theme");
if (chosen) document.documentElement.dataset.theme = chosen;
