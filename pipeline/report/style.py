# SPDX-License-Identifier: Apache-2.0
"""The page's style sheet: light and dark, phone and desktop, screen and paper."""

from __future__ import annotations

__all__ = ["DARK", "LIGHT", "PICTURES", "style_sheet", "variables"]

LIGHT = {
    "bg": "#ffffff",
    "soft": "#f5f6f8",
    "ink": "#1a1f26",
    "muted": "#545d68",
    "rule": "#d5dae1",
    "strong": "#7a8490",
    "link": "#0b57b0",
    "pass": "#13703a",
    "pass-bg": "#e4f4ea",
    "fail": "#b3261e",
    "fail-bg": "#fcebe9",
    "open": "#8a5200",
    "open-bg": "#fdf1dc",
    "error": "#7b2fa8",
    "error-bg": "#f5eafb",
    "calm": "#545d68",
    "calm-bg": "#eef0f3",
    "base": "#1a1f26",
    "base-bg": "#eef0f3",
}
"""Colours on white; every verdict also has its own word and shape."""

DARK = {
    "bg": "#101418",
    "soft": "#181d23",
    "ink": "#e8ebef",
    "muted": "#a3adb8",
    "rule": "#303841",
    "strong": "#77828e",
    "link": "#86b9ff",
    "pass": "#5fcf8b",
    "pass-bg": "#12291c",
    "fail": "#ff8f85",
    "fail-bg": "#351816",
    "open": "#f2b84b",
    "open-bg": "#32240b",
    "error": "#d4a0f5",
    "error-bg": "#2b1a37",
    "calm": "#a3adb8",
    "calm-bg": "#20262d",
    "base": "#e8ebef",
    "base-bg": "#20262d",
}

_GLYPHS = {
    "pass": "\u25cf",
    "fail": "\u25c6",
    "open": "\u25b2",
    "error": "\u2715",
    "calm": "\u25cb",
    "base": "\u25a0",
}

PICTURES = """
svg text{fill:var(--ink);font-size:12.5px;paint-order:stroke;stroke:var(--bg);stroke-width:3px}
svg .v,svg .e{text-anchor:end}svg .a{text-anchor:middle}svg .h{font-weight:650}
svg .a,svg .s,svg .e{fill:var(--muted);font-size:12px}svg .n{fill:var(--muted);font-size:11px}
.zero,.axis{stroke:var(--strong);stroke-width:1}.grid{stroke:var(--rule);stroke-width:1}
.margin{stroke:var(--fail);stroke-width:1.5;stroke-dasharray:4 3}
.guide{stroke:var(--rule);stroke-width:1;stroke-dasharray:1 4}
.thin{stroke:var(--strong);stroke-width:1}.bar{stroke-width:3}.tick{stroke-width:2}
.bar.pass,.tick.pass{stroke:var(--pass)}.bar.fail,.tick.fail{stroke:var(--fail)}
.bar.open,.tick.open{stroke:var(--open)}.bar.error,.tick.error{stroke:var(--error)}
.bar.calm,.tick.calm{stroke:var(--calm)}
.step{stroke:var(--muted);stroke-width:1.5}
.k{stroke:var(--bg);stroke-width:1}
.k.pass{fill:var(--pass)}.k.fail{fill:var(--fail)}.k.open{fill:var(--open)}.k.base{fill:var(--base)}
.k.ring{fill:none;stroke:var(--muted);stroke-width:1.5}
.k.error{stroke:var(--error);stroke-width:3;fill:none}.k.calm{fill:var(--bg);stroke:var(--calm);
stroke-width:2}
svg .d{font-size:12px;fill:var(--muted)}
svg .free{overflow:visible}.leader{stroke:var(--strong);stroke-width:1}
svg .named{fill:var(--ink);font-weight:650}
"""
"""Rules of what pictures are drawn with."""

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main,nav ul,footer,.hero>div{max-width:70rem;margin:0 auto;padding:0 1.25rem}
h1,h2,h3,h4{line-height:1.2;text-wrap:balance;margin:0}
h2{font-size:1.5rem;margin:3.25rem 0 .75rem;padding-top:.25rem}
h3{font-size:1.15rem;margin:2rem 0 .6rem;display:flex;gap:.6rem;align-items:center;flex-wrap:wrap}
h4{font-size:1rem;margin:1.6rem 0 .5rem}
p{margin:.5rem 0;max-width:50rem}
a{color:var(--link)}
code{font:.92em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;
unicode-bidi:isolate}
.note,caption,.foot-note{color:var(--muted);font-size:.875rem}
.hero{border-top:6px solid var(--tone);background:var(--tint);padding:2.25rem 0 2rem}
.hero .eyebrow{margin:0;font-size:.8rem;letter-spacing:.08em;text-transform:uppercase;color:var(--muted)}
.hero h1{font-size:clamp(1.9rem,6vw,3.25rem);letter-spacing:-.02em;margin:.35rem 0 .5rem;color:var(--tone)}
.hero h1::before{content:var(--glyph);content:var(--glyph)/"";margin-right:.35em;font-size:.62em;
vertical-align:.14em}
.hero .why{font-size:1.1rem;margin:0}
.look-pass{--tone:var(--pass);--tint:var(--pass-bg)}.look-fail{--tone:var(--fail);--tint:var(--fail-bg)}
.look-open{--tone:var(--open);--tint:var(--open-bg)}.look-error{--tone:var(--error);--tint:var(--error-bg)}
.look-calm{--tone:var(--calm);--tint:var(--calm-bg)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem;margin:1.5rem 0 0;
padding:0}
.tiles div{background:var(--bg);border:1px solid var(--rule);border-radius:.6rem;padding:.65rem .85rem}
.tiles dt{font-size:.8rem;color:var(--muted)}
.tiles dd{margin:0;font-size:1.35rem;font-weight:650;line-height:1.25}
.tiles dd small{display:block;font-size:.8rem;font-weight:400;color:var(--muted)}
.standings{list-style:none;margin:1.25rem 0 0;padding:0;display:grid;gap:.5rem}
.standings li{background:var(--bg);border:1px solid var(--rule);border-radius:.6rem;padding:.6rem .85rem}
nav{border-bottom:1px solid var(--rule);background:var(--bg);position:sticky;top:0;z-index:2}
nav ul{display:flex;gap:1.25rem;list-style:none;overflow-x:auto;padding-block:.6rem;font-size:.9rem;
white-space:nowrap}
nav a{text-decoration:none}nav a:hover{text-decoration:underline}
section,article{scroll-margin-top:3rem}
.chip{display:inline-block;white-space:nowrap;border-radius:1rem;padding:.08rem .6rem;font-size:.78rem;
font-weight:650;
letter-spacing:.01em;color:var(--tone);background:var(--tint);border:1px solid currentColor}
.chip::before{margin-right:.4em}
.tag{font-size:.78rem;color:var(--muted);border:1px solid var(--rule);border-radius:.3rem;padding:0 .35rem;
white-space:nowrap}
.cards{display:grid;gap:.75rem;margin:.75rem 0}
.card{border:1px solid var(--rule);border-left:4px solid var(--tone);border-radius:.5rem;padding:.8rem 1rem;
background:var(--bg)}
.card h4{margin:0;display:flex;gap:.35rem .6rem;flex-wrap:wrap;align-items:center}
h4 span:not(.chip){font-weight:400}.card.advisory{border-left-style:dotted}
.card p{margin:.35rem 0 .6rem}
.card dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(11rem,45%),1fr));gap:.4rem 1rem;
margin:0}
.card dt{font-size:.78rem;color:var(--muted)}.card dd{margin:0;font-weight:550}
.card dd small{display:block;font-weight:400;font-size:.82rem;color:var(--muted)}
.card div:not(.wide) dd{white-space:nowrap}.card dd small{white-space:normal}
.card .wide{grid-column:1/-1;display:flex;gap:.2rem .75rem;flex-wrap:wrap;align-items:baseline}
.card .wide dt{min-width:5.5rem}
.card .wide dd{font-weight:400;flex:1 1 16rem}
.scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:.6rem;margin:.75rem 0;max-width:100%}
.scroll:focus-visible{outline:3px solid var(--link);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.9rem;overflow-wrap:break-word}
caption{text-align:left;padding:.6rem .85rem;caption-side:top;border-bottom:1px solid var(--rule);
background:var(--soft)}
caption span{position:sticky;left:.85rem;display:inline-block;max-width:calc(100vw - 4.5rem)}
th,td{text-align:left;vertical-align:top;padding:.5rem .85rem;border-bottom:1px solid var(--rule)}
tbody:last-child tr:last-child>*{border-bottom:0}
thead th{font-size:.8rem;color:var(--muted);font-weight:600;white-space:nowrap}
tbody th{font-weight:600}
td small,th small{display:block;font-size:.92em;color:var(--muted);font-weight:400}
.passes{font-size:.875rem}.passes thead th{white-space:normal}
.passes td:nth-child(3),.passes td:nth-child(4){min-width:13rem}
.num,.candidates td,.candidates th{white-space:nowrap}
.candidates td:nth-child(2){white-space:normal;min-width:9.5rem}
.candidates tbody th{position:sticky;left:0;background:var(--bg)}
.candidates .picked>*{background:var(--pass-bg)!important}
.candidates .apart>*{color:var(--muted)}
.findings tbody tr.rule>*{background:var(--soft)}
.findings tbody th{min-width:13rem;overflow-wrap:anywhere}
.candidates td:nth-child(7){min-width:10rem}
.candidates td:nth-child(7) small{white-space:normal;overflow-wrap:anywhere}
.findings tr:not(.rule)>:first-child{width:1%}
.digests td code,.digests th code{font-size:.8rem;word-break:break-all}
.slim th[scope=row]{width:1%;white-space:nowrap}
figure{margin:1rem 0}figcaption{color:var(--muted);font-size:.875rem;margin-top:.4rem}
.defs{position:absolute}
.frame{border:1px solid var(--rule);border-radius:.6rem}
.forest,.front{display:block;overflow:visible}
.frame{overflow:hidden}.of-forest{padding:.75rem 206px .75rem 226px}.of-front{padding:1rem 1.25rem .5rem 4rem}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;list-style:none;padding:0;margin:.5rem 0 0;
font-size:.875rem;
color:var(--muted)}
.legend svg{vertical-align:-6px;margin-right:.35rem}
details>summary{cursor:pointer;font-weight:600;padding:.4rem 0}
footer{padding-block:2.5rem 3rem;margin-top:3rem;border-top:1px solid var(--rule);color:var(--muted);
font-size:.875rem}
@media (max-width:50rem){
body{font-size:15px}h2{margin-top:2.5rem}
.of-forest{padding:.5rem .9rem}.marks{transform:translateY(7px)}
svg .l{transform:translate(210px,-7px)}svg .v{transform:translate(-190px,-7px)}
svg .h{transform:translateX(210px)}
}
@media print{
:root{color-scheme:light}
nav{display:none}body{font-size:10pt}main,footer,.hero>div{max-width:none;padding:0}
.scroll{overflow:visible;border:0}.candidates td,.candidates th,.num{white-space:normal}
table{font-size:8.5pt}th,td{padding:.25rem .4rem}thead{display:table-header-group}
tr,.card,.tiles div{break-inside:avoid}h2,h3,h4,caption{break-after:avoid}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
details::details-content{content-visibility:visible;display:block;height:auto}
}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
"""


def variables(colours: dict[str, str]) -> str:
    """Return the declarations of colours by name."""
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def style_sheet() -> str:
    """Return the style sheet; paper is always light."""
    looks = "".join(
        f'.{look}{{--tone:var(--{look});--tint:var(--{look}-bg)}}.chip.{look}::before{{content:"{glyph}";'
        f'content:"{glyph}"/""}}.look-{look}{{--glyph:"{glyph}"}}'
        for look, glyph in _GLYPHS.items()
    )
    return (
        f":root{{color-scheme:light dark;{variables(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
        + PICTURES
        + _RULES
        + looks
    )
