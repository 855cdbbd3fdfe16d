"""The page's style, for light and dark screens, wide and narrow, and its few lines of script.

The page reads completely without the script: it only adds a filter, another order, and opening all layers at once.
"""

from __future__ import annotations

__all__ = ["SCRIPT", "STYLE"]

STYLE = """
:root{color-scheme:light dark;--bg:#f6f6f3;--card:#fff;--ink:#1b1e23;--soft:#5a616c;--line:#dfe1e5;--grid:#e9ebee;
--own:#2b6bd1;--acc:#bd5210;--out:#bf1f58;--band:#2b6bd11c;--half:#7b828d;--good:#1c7a4d;--mono:ui-monospace,
SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media(prefers-color-scheme:dark){:root{--bg:#121417;--card:#1a1d22;--ink:#e7e9ec;--soft:#9ba3af;--line:#2e333b;
--grid:#272b32;--own:#70a5f8;--acc:#f2a469;--out:#ff7da6;--band:#70a5f826;--half:#868e9a;--good:#5cc792}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Liberation Sans",sans-serif}
main,header,footer{max-width:1140px;margin:0 auto;padding:0 20px}
header{padding-top:36px}
h1{font-size:1.9rem;line-height:1.2;margin:.1em 0;overflow-wrap:anywhere}
h2{font-size:1.3rem;margin:2.2em 0 .5em;overflow-wrap:anywhere}
h3{font-size:1.02rem;margin:2em 0 .6em}
p{margin:.4em 0}
a{color:var(--own)}
code{font-family:var(--mono);font-size:.92em;overflow-wrap:anywhere}
.soft,figcaption,.eyebrow{color:var(--soft)}
.eyebrow{font-size:.85rem;margin:0}
.card,.rows>details,.rows>.heads,.tile{background:var(--card);border:1px solid var(--line);border-radius:10px}
.card{padding:14px 18px;margin:10px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:10px;margin:14px 0}
.tile{padding:12px 16px}
.tile dt{color:var(--soft);font-size:.82rem}
.tile{margin:0}
.tile dd{margin:0;font-size:1.25rem;font-weight:600;overflow-wrap:anywhere;line-height:1.3}
.tile dd code{font-size:.82em}.tile dd small{display:block;font-size:.8rem;font-weight:400;color:var(--soft)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th{text-align:left;color:var(--soft);font-weight:500;font-size:.82rem}
th,td{padding:6px 14px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.why{min-width:220px}td:first-child{white-space:nowrap}
.mark{display:inline-block;font-size:.78rem;line-height:1.5;padding:0 8px;border-radius:9px;
border:1px solid currentColor;white-space:nowrap}
.shipped,.kept{color:var(--good)}.rejected,.failed,.finding{color:var(--out)}.passed,.dropped{color:var(--soft)}
.findings{list-style:none;margin:0;padding:0}
.findings li{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--out);border-radius:8px;
padding:9px 14px;margin:8px 0}
.findings p{margin:.15em 0}
figure{margin:0}
figcaption{font-size:.84rem;margin-top:6px}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;fill:var(--soft)}
svg .end{text-anchor:end}svg .mid,svg text.badge{text-anchor:middle}
svg .grid{stroke:var(--grid);fill:none}svg .axis{stroke:var(--half);fill:none}
.overview{display:block;width:100%;min-width:760px}
.overview .own{fill:var(--own)}.overview .hit{fill:transparent}
.overview .hatch{stroke:var(--half);stroke-width:.8;opacity:.55}
.overview a:hover .hit,.overview a:focus .hit{fill:var(--band)}
.overview .accumulated{fill:none;stroke:var(--acc);stroke-width:2.2;stroke-linecap:round;stroke-linejoin:round;
pointer-events:none}
.overview .leader{stroke:var(--half);stroke-width:.8;fill:none}
svg rect.badge{fill:var(--card);stroke:var(--ink)}svg text.badge{fill:var(--ink);font-weight:600}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.84rem;color:var(--soft);margin:6px 0 0;padding:0;
list-style:none}
.legend i{display:inline-block;width:14px;height:10px;margin-right:6px;border-radius:2px;background:var(--own)}
.legend .joint i{height:3px;background:var(--acc);vertical-align:3px}
.legend .float i{background:repeating-linear-gradient(-45deg,var(--half) 0 1px,transparent 1px 4px);
outline:1px solid var(--line)}
.legend .badge i{width:14px;height:14px;border-radius:7px;border:1px solid var(--ink);background:none;
vertical-align:-2px}
.legend .shade i{background:var(--band);outline:1px dashed var(--own)}.legend .cut i{background:var(--out)}
.rows>details,.rows>.heads{margin:6px 0}
.rows summary,.heads{display:grid;grid-template-columns:34px minmax(0,1fr) 150px 150px 82px 70px 82px;gap:14px;
align-items:center;padding:8px 14px;list-style:none}
.rows>.heads{color:var(--soft);font-size:.82rem;background:none;border-color:transparent;padding-bottom:0;line-height:1.25}
.heads span:nth-child(n+5){text-align:right}
.rows summary{cursor:pointer}
.rows summary::-webkit-details-marker{display:none}
.rows summary:hover{background:var(--band)}
.rank{font-weight:600;font-variant-numeric:tabular-nums}
.rank::before{content:"\\25B8";color:var(--soft);font-size:.7rem;margin-right:5px;display:inline-block}
[open]>summary .rank::before{transform:rotate(90deg)}
.who small{color:var(--soft);margin-left:6px;white-space:nowrap}.who .mark{margin-left:6px}
.bar{display:flex;align-items:center;gap:8px;font-variant-numeric:tabular-nums}
.bar i{flex:1;height:7px;border-radius:4px;background:linear-gradient(var(--c),var(--c)) 0/var(--v) 100% no-repeat,
var(--grid)}
.bar b{font-weight:500;min-width:2.6em;text-align:right}
.bar.o{--c:var(--own)}.bar.a{--c:var(--acc)}
.key{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.more{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,480px);gap:8px 32px;padding:6px 18px 16px;
border-top:1px solid var(--line);scroll-margin-top:70px}
.more>p{grid-column:1/-1}
.more dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:3px 16px;margin:8px 0;font-size:.92rem;
align-content:start}
.more dt{color:var(--soft)}.more dd{margin:0;overflow-wrap:anywhere}
.more:target{outline:2px solid var(--own);outline-offset:-2px;border-radius:0 0 9px 9px}
code:target{outline:2px solid var(--own)}
.histogram{display:block;width:100%;max-width:480px}
.histogram .band{fill:var(--band)}.histogram .edge{stroke:var(--own);stroke-dasharray:3 2;fill:none}
.histogram .in{fill:var(--own);stroke:var(--own);stroke-width:.6}
.histogram .out{fill:var(--out);stroke:var(--out);stroke-width:.6}
.histogram .strip{fill:none;stroke-width:2;stroke:var(--half)}.histogram .chosen{stroke:var(--own);stroke-width:3}
.histogram .observed{stroke:var(--ink)}
.tools{display:flex;flex-wrap:wrap;gap:8px;margin:8px 0}
.tools[hidden]{display:none}
.tools>*{font:inherit;font-size:.9rem;padding:5px 10px;color:inherit;background:var(--card);
border:1px solid var(--line);border-radius:7px}
.tools input{flex:1;min-width:150px}
footer{padding-top:30px;padding-bottom:50px;font-size:.9rem}
@media(max-width:820px){
body{font-size:14.5px}header{padding-top:20px}main,header,footer{padding-left:12px;padding-right:12px}
.heads{display:none!important}
.rows summary{grid-template-columns:26px 1fr 1fr;gap:4px 12px}
.who{grid-column:2/-1}.bar{grid-column:auto}.bar.o{grid-column:2}
summary .num{font-size:.85rem;text-align:left}
.bar.a~.num:nth-last-child(2n+1),.none~.num:nth-last-child(2n+1){grid-column:2}
.none{display:none}
.key{position:static;width:auto;height:auto;clip-path:none;overflow:visible;color:var(--soft);font-size:.82rem;
font-weight:400}
.bar{flex-wrap:wrap;gap:0 8px}.bar .key{flex-basis:100%}
.more{grid-template-columns:minmax(0,1fr);padding:6px 12px 14px}
.card{padding:12px}
}
@media print{.tools{display:none}.rows>details,.findings li{break-inside:avoid}}
"""

SCRIPT = """
for(const bar of document.querySelectorAll(".tools")){
const list=document.getElementById(bar.dataset.list),rows=[...list.querySelectorAll("details")];
const[filter,order,open]=bar.children;
bar.hidden=false;
filter.oninput=()=>{const word=filter.value.toLowerCase();
for(const row of rows)row.hidden=!row.querySelector(".who").textContent.toLowerCase().includes(word)};
order.onchange=()=>list.append(...(order.value==="graph"?[...rows].sort((a,b)=>a.dataset.index-b.dataset.index):rows));
open.onclick=()=>{const all=rows.some(row=>!row.open);for(const row of rows)row.open=all};
}
"""
