// The vtctld page: keyspaces, shards and tablets with live health, vschemas, the topology, commands.
// Everything shown comes from the REST API of the same server and is put into the page as text.
'use strict';

const REFRESH_MS = 3000;
const view = document.getElementById('view');
const pulse = document.getElementById('pulse');

// An element with attributes and children; strings become text nodes, so nothing is parsed as HTML.
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === 'onclick') node.addEventListener('click', value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) node.append(child);
  return node;
}

async function api(path, options) {
  const answer = await fetch('/api/' + path, options);
  const text = await answer.text();
  if (!answer.ok) throw new Error(text.trim() || 'HTTP ' + answer.status);
  return JSON.parse(text);
}

const enc = encodeURIComponent;

function show(...nodes) { view.replaceChildren(...nodes); }

function dialog(title, text) {
  document.getElementById('result-title').textContent = title;
  document.getElementById('result-text').textContent = text || '(no output)';
  const box = document.getElementById('result');
  if (!box.open) box.showModal();
}

async function vtctl(args) {
  const answer = await api('vtctl/', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(args) });
  return answer;
}

// Runs a command and shows what it said.
async function run(args, question) {
  if (question && !confirm(question)) return;
  try {
    const answer = await vtctl(args);
    dialog(args.join(' '), (answer.Output || '') + (answer.Error ? '\nFailed: ' + answer.Error : (answer.Output ? '' : 'Done.')));
  } catch (error) {
    dialog(args.join(' '), 'Failed: ' + error.message);
  }
  refresh();
}

const button = (text, args, question, kind) => el('button', { class: kind, onclick: () => run(args, question) }, text);

/* ---- keyspaces ---- */

function healthCell(tablet) {
  if (tablet.error) return el('td', { class: 'bad', title: tablet.error }, 'unreachable');
  const health = tablet.health;
  if (!health) return el('td', { class: 'muted' }, 'waiting…');
  const stats = health.realtime_stats || {};
  if (stats.health_error) return el('td', { class: 'bad', title: stats.health_error }, stats.health_error.slice(0, 60));
  if (!health.serving) return el('td', { class: 'warn' }, 'not serving');
  return el('td', { class: 'good', title: 'serving queries' }, 'healthy');
}

function lagCell(tablet) {
  const stats = (tablet.health && tablet.health.realtime_stats) || {};
  if (tablet.type === 'master') return el('td', { class: 'muted' }, '–');
  if (!tablet.health) return el('td', { class: 'muted' }, '');
  const lag = stats.seconds_behind_master || 0;
  return el('td', { class: lag > 30 ? 'warn' : '' }, lag + ' s');
}

function qpsCell(tablet) {
  const stats = tablet.health && tablet.health.realtime_stats;
  return el('td', {}, stats ? (stats.qps || 0).toFixed(1) : '');
}

function tabletActions(tablet) {
  const choice = el('select', { 'aria-label': 'action on ' + tablet.alias },
    el('option', { value: '' }, 'action…'),
    ['Ping', 'RefreshState', 'RunHealthCheck', 'ReloadSchema', 'GetTablet', 'GetSchema', 'GetPermissions'].map(name => el('option', { value: name }, name)),
    el('option', { value: 'DeleteTablet' }, 'DeleteTablet'));
  choice.addEventListener('change', () => {
    const name = choice.value;
    choice.value = '';
    if (name) run([name, tablet.alias], name === 'DeleteTablet' ? 'Delete the record of ' + tablet.alias + '?' : undefined);
  });
  return choice;
}

function tabletRow(tablet) {
  const address = tablet.hostname && tablet.vt_port ? tablet.hostname + ':' + tablet.vt_port : '';
  return el('tr', {},
    el('td', {}, el('code', {}, tablet.alias)),
    el('td', {}, el('span', { class: 'badge ' + (tablet.type === 'master' ? 'master' : '') }, tablet.type)),
    healthCell(tablet), lagCell(tablet), qpsCell(tablet),
    el('td', {}, address ? el('a', { href: 'http://' + address + '/debug/status' }, address) : el('span', { class: 'muted' }, 'not running')),
    el('td', { class: 'muted' }, tablet.mysql),
    el('td', {}, tabletActions(tablet)));
}

function shardBlock(keyspace, shard) {
  const name = keyspace + '/' + shard.name;
  const heading = el('h3', {}, name,
    el('span', { class: 'muted' }, shard.is_master_serving ? 'serving' : 'not serving', shard.master ? ', master ' + shard.master : ', no master'),
    button('Validate', ['ValidateShard', '-ping-tablets=false', name]),
    button('Positions', ['ShardReplicationPositions', name]),
    button('Reload schema', ['ReloadSchemaShard', name]));
  const problem = shard.error ? el('p', { class: 'bad' }, shard.error) : null;
  const table = el('div', { class: 'scroll' }, el('table', {},
    el('thead', {}, el('tr', {}, ['tablet', 'type', 'state', 'lag', 'qps', 'address', 'mysqld', ''].map(text => el('th', {}, text)))),
    el('tbody', {}, shard.tablets.map(tabletRow))));
  return [heading, problem, shard.tablets.length ? table : el('p', { class: 'muted' }, 'no tablets')];
}

async function keyspacesView() {
  const keyspaces = await api('overview/');
  if (!keyspaces.length) return show(el('p', { class: 'muted' }, 'There is no keyspace yet.'));
  show(...keyspaces.map(keyspace => el('section', { class: 'card' },
    el('h2', {}, keyspace.name, ' ', el('span', { class: 'muted' }, keyspace.shards.length + (keyspace.shards.length === 1 ? ' shard' : ' shards'), keyspace.sharded ? ', sharded' : '')),
    el('div', { class: 'row' },
      button('Validate', ['ValidateKeyspace', keyspace.name]),
      button('Compare schemas', ['ValidateSchemaKeyspace', keyspace.name]),
      button('Compare versions', ['ValidateVersionKeyspace', keyspace.name]),
      button('Rebuild serving graph', ['RebuildKeyspaceGraph', keyspace.name]),
      el('a', { href: '#/vschema/' + enc(keyspace.name) }, 'vschema')),
    keyspace.error ? el('p', { class: 'bad' }, keyspace.error) : null,
    keyspace.shards.map(shard => shardBlock(keyspace.name, shard)))));
}

/* ---- vschema ---- */

async function vschemaView(keyspace) {
  const names = await api('keyspaces/');
  const links = el('nav', {}, names.map(name => el('a', { href: '#/vschema/' + enc(name), class: name === keyspace ? 'on' : undefined }, name)));
  if (!keyspace) return show(el('section', { class: 'card' }, el('h2', {}, 'VSchema'), names.length ? links : el('p', { class: 'muted' }, 'There is no keyspace yet.')));
  const answer = await vtctl(['GetVSchema', keyspace]);
  const text = el('textarea', { rows: 28, spellcheck: 'false', 'aria-label': 'vschema as JSON' });
  text.value = answer.Error ? '' : answer.Output;
  const apply = (...flags) => run(['ApplyVSchema', ...flags, '-vschema', text.value, keyspace],
    flags.length ? undefined : 'Replace the vschema of ' + keyspace + '?');
  show(el('section', { class: 'card' }, el('h2', {}, 'VSchema of ', keyspace), links,
    answer.Error ? el('p', { class: 'bad' }, answer.Error) : null, text,
    el('div', { class: 'row' },
      el('button', { onclick: () => apply('-dry-run') }, 'Check'),
      el('button', { onclick: () => apply() }, 'Apply'),
      button('Rebuild SrvVSchema', ['RebuildVSchemaGraph']))));
}

/* ---- topology ---- */

async function topologyView(path) {
  const node = await api('topodata/' + path.split('/').map(enc).join('/'));
  const parts = path.split('/').filter(Boolean);
  const crumbs = [el('a', { href: '#/topology' }, '/')];
  parts.forEach((part, i) => crumbs.push(' ', el('a', { href: '#/topology/' + parts.slice(0, i + 1).join('/') }, part), i + 1 < parts.length ? ' /' : ''));
  const children = (node.Children || []).map(name => el('tr', {}, el('td', {}, el('a', { href: '#/topology/' + [...parts, name].join('/') }, name))));
  show(el('section', { class: 'card' }, el('h2', {}, 'Topology'), el('p', {}, crumbs),
    node.Error ? el('p', { class: 'bad' }, node.Error) : null,
    node.Data ? el('pre', {}, node.Data) : null,
    children.length ? el('table', {}, el('tbody', {}, children)) : null));
}

/* ---- commands ---- */

// Words of a command line, with single and double quotes.
function words(line) {
  const found = [];
  const pattern = /'([^']*)'|"((?:\\.|[^"\\])*)"|(\S+)/g;
  for (let match; (match = pattern.exec(line));) {
    found.push(match[1] !== undefined ? match[1] : match[2] !== undefined ? match[2].replace(/\\(.)/g, '$1') : match[3]);
  }
  return found;
}

function commandsView() {
  const line = el('input', { type: 'text', placeholder: 'ListAllTablets zone1', 'aria-label': 'command' });
  const output = el('pre', {}, 'The output stands here. "Help" lists all commands.');
  const go = async () => {
    const args = words(line.value);
    if (!args.length) return;
    output.textContent = '…';
    try {
      const answer = await vtctl(args);
      output.textContent = (answer.Output || '') + (answer.Error ? '\nFailed: ' + answer.Error : '') || '(done)';
    } catch (error) {
      output.textContent = 'Failed: ' + error.message;
    }
  };
  line.addEventListener('keydown', event => { if (event.key === 'Enter') go(); });
  show(el('section', { class: 'card' }, el('h2', {}, 'Run a command'),
    el('div', { class: 'row' }, line, el('button', { onclick: go }, 'Run')), output));
  line.focus();
}

/* ---- routing and refresh ---- */

let latest = 0;
async function refresh() {
  const [tab, ...rest] = decodeURIComponent(location.hash.replace(/^#\//, '') || 'keyspaces').split('/');
  for (const link of document.querySelectorAll('#tabs a')) link.classList.toggle('on', link.getAttribute('href') === '#/' + tab);
  const mine = ++latest;
  try {
    if (tab === 'vschema') await vschemaView(rest.join('/'));
    else if (tab === 'topology') await topologyView(rest.join('/'));
    else if (tab === 'commands') commandsView();
    else await keyspacesView();
    if (mine === latest) pulse.className = 'good';
  } catch (error) {
    pulse.className = 'bad';
    pulse.title = error.message;
    if (mine === latest && (tab !== 'keyspaces' || !view.querySelector('.card'))) show(el('p', { class: 'bad' }, error.message));
  }
}

window.addEventListener('hashchange', refresh);
// Only the live page refreshes by itself: the others hold what somebody is reading or typing.
setInterval(() => {
  const live = /^(#\/keyspaces)?$/.test(location.hash);
  if (live && !document.hidden && document.activeElement.tagName !== 'SELECT') refresh();
}, REFRESH_MS);
refresh();
