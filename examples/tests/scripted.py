"""What the test `outside` runs in Python: the script against a node that this plays by hand."""
import threading
import msgpack
from websockets.sync.server import serve
from rabia_bank import Bank

asked, answers = [], {}

def play(socket):
    """Answers each request as the test says, and alike however often it comes."""
    for frame in socket:
        message = msgpack.unpackb(frame)
        if "hello" in message:
            socket.send(msgpack.packb({"welcome": {"node": 1, "cluster": "0" * 32, "session": 7, "applied_slot": 3, "level": 2}}))
            continue
        asked.append(message["request"])
        socket.send(msgpack.packb({"notice": "closed on Sunday"}))
        answer = answers[message["request"]]
        socket.send(answer if isinstance(answer, bytes) else msgpack.packb({"request": message["request"], **answer}))

def deposit(bank):
    return bank.ask(seconds=5, command={"deposit": {"account_id": "a", "amount": 1}})

def unknown(bank):
    try:
        return not deposit(bank)
    except TimeoutError as error:
        return "outcome unknown" in str(error)

with serve(play, "127.0.0.1", 0) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bank = Bank([f"ws://127.0.0.1:{server.socket.getsockname()[1]}"])
    # What it does not know comes out as it came, and codes are what their outcomes say.
    for number, answer in enumerate([
        {"slot": 9, "index": 0, "ok": {"transaction": {"type": "hold", "transaction_id": 1, "reference": "auth-9"}}},
        {"slot": 9, "error": {"code": "hold_expired", "message": "", "outcome": "refused", "hold": 77}},
        {"error": {"code": "members_too_old", "message": "", "outcome": "unknown"}},
    ], start=1):
        answers[number] = answer
        assert deposit(bank) == {"request": number, **answer}
    # What can't be read is unknown, and asked for once, or three times where it may have been another connection's fault.
    answers[4], answers[5], answers[6] = {"deferred": {}}, {"error": {"code": "x", "message": "", "outcome": "perhaps"}}, b"\xc1"
    assert unknown(bank) and unknown(bank) and unknown(bank)
    assert asked == [1, 2, 3, 4, 5, 6, 6, 6], asked
    answers[7] = {"ok": {}}
    assert deposit(bank) == {"request": 7, "ok": {}}
    server.shutdown()
print("passed")
