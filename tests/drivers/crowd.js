#!/usr/bin/env node
// Many clients of node-postgres at once, each with settings of its own, on few server connections.
// Usage: crowd.js HOST PORT USER DATABASE
'use strict';
const assert = require('node:assert');
const { Client } = require('pg');

const CLIENTS = 50;
const ROUNDS = 8;
const ZONES = ['UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Tokyo', 'Asia/Kolkata'];
const [host, port, user, database] = process.argv.slice(2);

const connect = async () => {
  const client = new Client({ host, port: Number(port), user, database, connectionTimeoutMillis: 60000 });
  await client.connect();
  return client;
};

const work = async (client, number) => {
  const zone = ZONES[number % ZONES.length];
  const named = (name, text, values) => client.query({ name, text, values });
  for (let n = 0; n < ROUNDS; n += 1) {
    const inserted = await named('insert', 'insert into crowd_node (owner, n) values ($1, $2) returning id', [number, n]);
    const { id } = inserted.rows[0];
    await client.query('begin');
    await client.query('select n from crowd_node where id = $1 for update', [id]);
    await named('update', 'update crowd_node set note = $1 where id = $2', [`${number}/${n}`, id]);
    await client.query('commit');
    const [found, counted, shown] = await Promise.all([
      named('find', 'select owner, n, note from crowd_node where id = $1', [id]),
      named('count', 'select count(*)::int as count from crowd_node where owner = $1', [number]),
      client.query('show timezone'),
    ]);
    assert.deepStrictEqual({ ...found.rows[0] }, { owner: number, n, note: `${number}/${n}` });
    assert.strictEqual(counted.rows[0].count, n + 1);
    assert.strictEqual(shown.rows[0].TimeZone, zone);
  }
};

(async () => {
  const began = Date.now();
  const first = await connect();
  await first.query('drop table if exists crowd_node');
  await first.query('create table crowd_node (id bigint generated always as identity primary key, owner int not null, n int not null, note text)');
  await first.end();
  const clients = await Promise.all(Array.from({ length: CLIENTS }, connect));
  await Promise.all(clients.map((client, number) => client.query(`set timezone = '${ZONES[number % ZONES.length]}'`)));
  await Promise.all(clients.map(work));
  await Promise.all(clients.map((client) => client.end()));
  console.log(`ok crowd node-postgres ${CLIENTS} clients in ${(Date.now() - began) / 1000} s`);
})().catch((error) => {
  console.error('FAILED crowd node-postgres:', error);
  process.exit(1);
});
