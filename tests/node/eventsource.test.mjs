import assert from "node:assert/strict";
import { test } from "node:test";
import { EventSource } from "eventsource";
import { http, once, several } from "./support.mjs";

test("eventsource: names, ids, lines, and Last-Event-ID when it connects again", async () => {
  const source = new EventSource(`${http}/events`);
  const plain = several(source, "message", 3);
  const named = once(source, "news");
  const resumed = once(source, "resumed");
  assert.deepEqual((await plain).map((e) => e.data), ["first\nof two lines", "grüße, 世界", "forged?\nevent: evil\nid: evil\n\ndata: evil"]);
  assert.deepEqual((await plain).map((e) => e.lastEventId), ["", "", ""]);
  assert.deepEqual([(await named).data, (await named).lastEventId], ["named", "7"]);
  assert.deepEqual([(await resumed).data, (await resumed).lastEventId], ["again after 7", "8"]);
  source.close();
});

test("eventsource: 204 ends it for good", async () => {
  const source = new EventSource(`${http}/gone`);
  const error = await once(source, "error");
  assert.equal(error.code, 204);
  assert.equal(source.readyState, source.CLOSED);
});

test("eventsource: what is no event stream is refused", async () => {
  const source = new EventSource(`${http}/page`);
  await once(source, "error");
  assert.equal(source.readyState, source.CLOSED);
});
