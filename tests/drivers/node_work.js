#!/usr/bin/env node
// Ordinary work of node-postgres against one database. Usage: node_work.js [HOST PORT USER DATABASE]
// The driver is looked for in POSTERN_TEST_ENV/node (tests/run puts it there), then wherever node looks.
'use strict'

const path = require('node:path')
const crypto = require('node:crypto')

function load(name) {
  const environment = process.env.POSTERN_TEST_ENV || path.join(__dirname, '../../target/test-env')
  try {
    return require(require.resolve(name, { paths: [path.join(environment, 'node'), __dirname] }))
  } catch (problem) {
    console.error(`node_work.js: node-postgres is missing (${problem.code}); tests/run --prepare installs it`)
    process.exit(2)
  }
}
const pg = load('pg')

const [host, port, user, database] = process.argv.slice(2)
const where = {
  host: host || process.env.PGHOST || '127.0.0.1',
  port: Number(port || process.env.PGPORT || 5432),
  user: user || process.env.PGUSER || 'postgres',
  database: database || process.env.PGDATABASE || user || process.env.PGUSER || 'postgres',
  connectionTimeoutMillis: 20000,
  application_name: 'node_work',
  // The driver takes PGSSLMODE=require for "verify", which libpq doesn't; this does what libpq does.
  ssl: ['require', 'prefer', 'allow'].includes(process.env.PGSSLMODE) ? { rejectUnauthorized: false } : undefined,
}
const BIG = 20 * 1024 * 1024
const table = `work_node_${process.pid}`
const md5 = (data) => crypto.createHash('md5').update(data).digest('hex')
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

class Different extends Error {}

function shorten(value) {
  const text = JSON.stringify(value) ?? String(value)
  return text.length < 300 ? text : `${text.slice(0, 200)}… (${text.length} characters)`
}

function expect(what, found, wanted) {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) {
    throw new Different(`${what}: found ${shorten(found)}, wanted ${shorten(wanted)}`)
  }
}

async function expectError(what, code, promise) {
  try {
    await promise
  } catch (problem) {
    expect(`${what}: SQLSTATE`, problem.code, code)
    return problem
  }
  throw new Different(`${what}: no error`)
}

async function connect() {
  const client = new pg.Client(where)
  client.on('error', () => {}) // what matters is told by the query that it hits
  await client.connect()
  return client
}

const steps = {
  async simple(client) {
    const { rows } = await client.query('select current_user::text as who, current_database()::text as db, 1 + 1 as two')
    expect('who and where', rows, [{ who: where.user, db: where.database, two: 2 }])
    const results = await client.query('select 1 as n; select 2 as n; select 3 as n')
    expect('several statements at once', results.map((result) => result.rows[0].n), [1, 2, 3])
    expect('an empty statement', (await client.query('')).rows, [])
  },

  async parameters(client) {
    const values = { int4: -2147483648, text: 'Grüße 🐘 \\ \' " \t\n', bool: true, float8: 1.5e300, jsonb: { a: [1, null] }, 'int4[]': [1, null, 3] }
    for (const [kind, value] of Object.entries(values)) {
      const { rows } = await client.query(`select $1::${kind} as v, null::${kind} as n`, [value])
      expect(kind, rows, [{ v: value, n: null }])
    }
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index))
    const { rows } = await client.query('select $1::bytea as v', [bytes])
    expect('bytea', rows[0].v.equals(bytes), true)
    expect('int8', (await client.query('select $1::int8 as v', ['9223372036854775807'])).rows, [{ v: '9223372036854775807' }])
  },

  async named(client) {
    for (let number = 0; number < 100; number++) {
      const { rows } = await client.query({ name: 'doubled', text: 'select $1::int * 2 as v', values: [number] })
      expect('a named statement', rows, [{ v: number * 2 }])
    }
    for (let number = 0; number < 200; number++) {
      const step = number % 20
      const { rows } = await client.query({ name: `plus ${step}`, text: `select $1::int + ${step} as v`, values: [number] })
      expect('many named statements', rows, [{ v: number + step }])
    }
  },

  async binary(client) {
    // Small numbers only: the driver reads binary values through a string, which spoils bytes from 128 on.
    const { rows } = await client.query({ text: 'select $1::int4 as i, $2::text as t, $3::bool as b', values: [77, 'text', true], binary: true })
    expect('binary results', rows, [{ i: 77, t: 'text', b: true }])
  },

  async transactions(client) {
    await client.query('begin')
    await client.query(`insert into ${table} (id) values ($1), ($2)`, [1, 2])
    await client.query('savepoint here')
    const problem = await expectError('a duplicate key', '23505', client.query(`insert into ${table} (id) values ($1)`, [1]))
    expect('the table an error names', problem.table, table)
    await expectError('a statement in a failed transaction', '25P02', client.query('select 1'))
    await client.query('rollback to here')
    await client.query('commit')
    await client.query('begin')
    await client.query(`delete from ${table}`)
    await client.query('rollback')
    expect('what was committed', (await client.query(`select count(*)::int as n from ${table}`)).rows, [{ n: 2 }])
  },

  async failures(client) {
    await expectError('division by zero', '22012', client.query('select 1/0'))
    await expectError('the same with a parameter', '22012', client.query('select 1/$1::int', [0]))
    await expectError('a syntax error', '42601', client.query('selec $1', [1]))
    await expectError('no such table', '42P01', client.query('select * from no_such_table'))
    await expectError('a value that is none', '22P02', client.query('select $1::int', ['x']))
    expect('after errors', (await client.query('select $1::int as n', [3])).rows, [{ n: 3 }])
    const notices = []
    client.on('notice', (notice) => notices.push(notice.message))
    await client.query("do $$ begin raise notice 'hello %', 1; end $$")
    expect('notices', notices, ['hello 1'])
  },

  async notifications(client) {
    const other = await connect()
    const found = []
    client.on('notification', (message) => found.push(message.payload))
    await client.query(`listen ${table}`)
    const wanted = Array.from({ length: 20 }, (_, number) => `${number} ${'x'.repeat(7000)}`)
    for (const payload of wanted) await other.query('select pg_notify($1, $2)', [table, payload])
    for (let turn = 0; turn < 200 && found.length < wanted.length; turn++) await pause(20)
    expect('notifications', found, wanted)
    await client.query(`unlisten ${table}`)
    await other.end()
  },

  async cancels(client) {
    const other = await connect()
    const pid = (await client.query('select pg_backend_pid() as pid')).rows[0].pid
    const begin = Date.now()
    const sleeping = expectError('a cancelled query', '57014', client.query('select pg_sleep(20)'))
    await pause(300)
    await other.query('select pg_cancel_backend($1)', [pid])
    await sleeping
    // The protocol's own way: a second connection that carries the key of the first.
    const again = expectError('a query cancelled by key', '57014', client.query('select pg_sleep(20)'))
    await pause(300)
    const messenger = new pg.Connection({ ssl: where.ssl })
    messenger.on('error', () => {})
    messenger.connect(where.port, where.host)
    messenger.on('connect', () => {
      if (where.ssl) messenger.requestSsl()
      else messenger.cancel(client.processID, client.secretKey)
    })
    messenger.on('sslconnect', () => messenger.cancel(client.processID, client.secretKey))
    await again
    if (Date.now() - begin > 15000) throw new Different(`two cancels took ${Date.now() - begin} ms`)
    expect('after cancels', (await client.query('select 7 as n')).rows, [{ n: 7 }])
    await other.end()
  },

  async large(client) {
    const text = (await client.query("select repeat('0123456789abcdef', $1) as v", [BIG / 16])).rows[0].v
    expect('a large value', md5(text), md5('0123456789abcdef'.repeat(BIG / 16)))
    const body = Buffer.alloc(BIG, 'postern')
    expect('a large parameter', (await client.query('select length($1::bytea) as n, md5($1::bytea) as sum', [body])).rows, [{ n: BIG, sum: md5(body) }])
    const { rows } = await client.query("select n, repeat('y', 1000) as v from generate_series(1, 20000) as n")
    expect('many rows', [rows.length, rows[19999].n, rows.every((row) => row.v.length === 1000)], [20000, 20000, true])
  },

  async pool() {
    const pool = new pg.Pool({ ...where, max: 20 })
    pool.on('error', () => {})
    try {
      const answers = await Promise.all(Array.from({ length: 1000 }, (_, number) => pool.query('select $1::int * 3 as v', [number])))
      expect('answers through the pool', answers.map((answer) => answer.rows[0].v), answers.map((_, number) => number * 3))
      const owners = await Promise.all(Array.from({ length: 20 }, async (_, number) => {
        const client = await pool.connect()
        try {
          await client.query(`set application_name to 'owner ${number}'`)
          await pause(20)
          return (await client.query("select current_setting('application_name') as v")).rows[0].v
        } finally {
          client.release(true)
        }
      }))
      expect('a setting per client', owners, owners.map((_, number) => `owner ${number}`))
    } finally {
      await pool.end()
    }
  },
}

async function main() {
  const begin = Date.now()
  let step = 'connect'
  try {
    const client = await connect()
    await client.query(`create table ${table} (id int primary key, body text)`)
    try {
      for (step of Object.keys(steps)) {
        await steps[step](client)
        client.removeAllListeners('notice')
        client.removeAllListeners('notification')
      }
    } finally {
      await client.end()
      const other = await connect()
      await other.query(`drop table if exists ${table}`)
      await other.end()
    }
    const seconds = ((Date.now() - begin) / 1000).toFixed(1)
    const versions = `pg ${load('pg/package.json').version}, node ${process.version}`
    console.log(`ok node ${Object.keys(steps).length} kinds of work in ${seconds} s (${versions})`)
  } catch (problem) {
    console.error(`FAILED node, ${step}: ${problem instanceof Different ? problem.message : problem.stack}`)
    process.exitCode = 1
  }
}

const watchdog = setTimeout(() => {
  console.error('FAILED node: not finished after 120 s')
  process.exit(1)
}, 120000)
main().finally(() => {
  clearTimeout(watchdog)
  process.exit() // whatever a failed step left open
})
