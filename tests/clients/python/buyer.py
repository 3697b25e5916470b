"""An agent by HTTP that states one intent and follows it to its end: docs/AGENTS.md. Standard library only.
SOVEREIGN_TOKEN=… python3 buyer.py API AGENT INSTRUMENT PRICE DAY; started again, it does nothing twice."""
import json, os, sys, urllib.error
from urllib.request import Request, urlopen

API, AGENT, INSTRUMENT, PRICE, DAY = sys.argv[1:6]
HEADERS = {"Authorization": "Bearer " + os.environ["SOVEREIGN_TOKEN"], "Content-Type": "application/json"}
steps = 0


def ask(path, body=None, key=None):
    headers = HEADERS | ({"Idempotency-Key": key} if key else {})
    return urlopen(Request(f"{API}/api/v1/agents/{AGENT}/{path}", body and json.dumps(body).encode(), headers))


def act(path, **body):
    global steps
    steps += 1  # the same step has the same key at each start, so it takes effect once
    try:
        return json.load(ask(path, body, f"{INSTRUMENT} {DAY} {steps}"))
    except urllib.error.HTTPError as refused:
        sys.exit(f"{path}: {refused.read().decode()}")


why = f"{INSTRUMENT} costs {PRICE} on {DAY}, which is cheap"
for to in ("SCANNING", "ANALYZING", "VERIFYING"):
    act("transitions", to=to, reason="one_purchase")
act("thoughts", text=why)
intent = act("intents", instrument=INSTRUMENT, side="BUY", quantity="1", price=PRICE, decided_on=DAY, rationale=why)

for line in ask(f"decisions/stream?after={intent['positions'][1]}"):
    if not line.startswith(b"data: "):
        continue  # blank lines, heartbeats
    event = json.loads(line[6:])
    kind, data, own = event.get("event_type"), event.get("data"), event.get("aggregate_id") == intent["trade_id"]
    print(json.dumps([event["position"], kind]), flush=True)
    if kind == "ExecutionCleared" and data["trade_id"] == intent["trade_id"]:
        act("transitions", to="EXECUTING", reason="cleared")
        act("transitions", to="IDLE", reason="order_placed")
    elif own and (kind in ("TradeHeld", "TradeCancelled") or (kind == "VerdictGiven" and data["verdict"] == "RED")):
        act("transitions", to="IDLE", reason="given_up")
        sys.exit(1)
    elif own and kind == "TradeFilled":
        break
