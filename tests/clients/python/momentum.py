"""A momentum trader of one instrument as a program of sovereign.toml: docs/AGENTS.md. Standard library only."""
import json, sys
from decimal import Decimal

AGENT, MINE = sys.argv[1:3]
closes, position, order, names = [], None, None, 0


def say(at, upon, command, aggregate="agent", **data):
    global names
    names += 1  # each command in answer to an event needs a name of its own, the same at each start
    print(json.dumps({"type": "command", "id": str(names), "position": at, "agent": AGENT, "aggregate": aggregate,
                      "aggregate_id": upon, "command": command, "data": data}), flush=True)


def look(at, bar):
    global order
    closes.append(Decimal(bar["close"]))
    moved = closes[-1] / closes[-6] - 1 if len(closes) > 5 else 0
    if order or (moved <= Decimal("0.02") if position is None else moved >= 0):
        return
    order = {"id": f"trade_{AGENT}_{bar['opened_at'][:10]}", "closes": position}
    why = f"{MINE} moved by {moved:.2%} over 5 bars up to {bar['opened_at'][:10]}"
    for to in ("SCANNING", "ANALYZING", "VERIFYING"):
        say(at, AGENT, "transition", to=to, reason="momentum")
    say(at, AGENT, "record_thought", text=why)
    say(at, order["id"], "propose", "trade", agent_id=AGENT, instrument=MINE, side="SELL" if position else "BUY", quantity="1",
        price=bar["close"], closes=position, decided_on=bar["opened_at"], rationale=why)


for line in sys.stdin:
    told = json.loads(line)
    if told["type"] != "event":
        continue  # hello and outcomes: what became of an intent comes as an event, too
    at, event, names = told["position"], told["event"], 0
    kind, data, own = event["event_type"], event["data"], order is not None and event["aggregate_id"] == order["id"]
    if kind == "MarketObserved" and data["instrument"] == MINE:
        look(at, data)
    elif kind == "ExecutionCleared" and event["aggregate_id"] == AGENT:
        say(at, AGENT, "transition", to="EXECUTING", reason="cleared")
        say(at, AGENT, "transition", to="IDLE", reason="order_placed")
    elif own and kind == "TradeFilled":
        position, order = None if order["closes"] else order["id"], None
    elif own and (kind in ("TradeHeld", "TradeCancelled") or (kind == "VerdictGiven" and data["verdict"] == "RED")):
        order = None
        say(at, AGENT, "transition", to="IDLE", reason="given_up")
    print(json.dumps({"type": "done", "position": at}), flush=True)
