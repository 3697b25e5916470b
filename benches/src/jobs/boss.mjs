// What drive.rs does, with pg-boss. Arguments: jobs to warm up, jobs, at once, milliseconds at half
// of the rate; the database comes in the environment.
import PgBoss from 'pg-boss';

const [warm, jobs, atOnce, halfMs] = process.argv.slice(2).map(Number);
const queue = 'bench';
const boss = new PgBoss({ connectionString: process.env.BENCH_DATABASE, max: 32 });
boss.on('error', (error) => { console.error(error); process.exit(1); });
await boss.start();
await boss.createQueue(queue);

const seen = [];
let count = 0, ended = 0, twice = 0, stop = false;
// its own loop asks twice a second at most, so this one asks again as soon as it has finished
const loops = Array.from({ length: 4 }, async () => {
  while (!stop) {
    const found = await boss.fetch(queue, { batchSize: atOnce });
    if (!found?.length) {
      await new Promise((done) => setTimeout(done, 2));
      continue;
    }
    for (const job of found) {
      if (seen[job.data.number] !== undefined) twice += 1;
      seen[job.data.number] = performance.now();
      count += 1;
    }
    await boss.complete(queue, found.map((job) => job.id));
    ended += found.length;
  }
});
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
async function burst(from, to) {
  let next = from;
  await Promise.all(Array.from({ length: atOnce }, async () => {
    while (next < to) {
      const number = next;
      next += 1;
      await boss.send(queue, { number });
    }
  }));
  while (ended < to) await pause(2);
}
await burst(0, warm);
const begun = performance.now();
await burst(warm, warm + jobs);
const rate = jobs / ((performance.now() - begun) / 1000);

const half = Math.floor(rate / 2 * halfMs / 1000);
const start = performance.now();
const due = (n) => start + n * 2000 / rate;
const calls = [];
for (let n = 0; n < half; n += 1) {
  const wait = due(n) - performance.now();
  if (wait > 1) await pause(wait);
  calls.push(boss.send(queue, { number: warm + jobs + n }));
}
await Promise.all(calls);
while (count < warm + jobs + half) await pause(2);
const waits = Array.from({ length: half }, (_, n) => seen[warm + jobs + n] - due(n));
waits.sort((a, b) => a - b);
const at = (share) => waits[Math.round((waits.length - 1) * share)];
stop = true;
await Promise.all(loops);
await boss.stop({ graceful: false, wait: true });
console.log(JSON.stringify({ rate, p50_ms: at(0.5), p99_ms: at(0.99), twice }));
process.exit(0);
