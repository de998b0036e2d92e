"""Style sheet of the page: one column, for phones and wide screens, light and dark."""

CSS = """
:root { color-scheme: light dark; --text: #1c2430; --soft: #5b6675; --page: #f6f7f9; --card: #fff;
  --line: #dfe3e8; --accent: #2f6db5; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --soft: #9aa5b4; --page: #14181e;
  --card: #1d232b; --line: #323b47; --accent: #7db1ef; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 12px; }
.subtitle, footer, figcaption, .note { color: var(--soft); }
.subtitle { margin: 0 0 16px; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 20px; }
a { color: var(--accent); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px; margin: 0 0 16px; }
dl { display: grid; grid-template-columns: minmax(7em, max-content) 1fr; gap: 4px 16px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); }
figure { margin: 12px 0 0; }
.gallery { display: grid; gap: 12px; align-items: center;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
summary { cursor: pointer; color: var(--accent); margin-bottom: 8px; }
figure .paper { background: #fff; border-radius: 6px; padding: 6px; }
figure svg { display: block; width: 100%; height: auto; max-height: 560px; }
figcaption { font-size: .9rem; margin-top: 6px; }
section > * + * { margin-top: 14px; }
h2 + * { margin-top: 0 !important; }
footer { font-size: .85rem; }
@media (max-width: 520px) { main { padding: 16px 10px 32px; } section { padding: 12px; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; } }
@media print { section { break-inside: avoid; } nav { display: none; } }
"""
"""Style sheet."""
