"""A client in another language, written from messages/WIRE.md alone: pip install websockets msgpack, then
RABIA_BANK_TOKEN=rb_… python rabia_bank.py ws://127.0.0.1:7101 …  (wss://… for TLS; SSL_CERT_FILE names whom to trust.) It opens accounts, moves money, and watches itself do it."""
import os, secrets, sys, time
import msgpack
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

class Bank:
    """One session. What is unanswered is asked again, with the same number, at the next node."""
    def __init__(self, urls):
        self.urls, self.key, self.session, self.last, self.socket = urls, secrets.token_hex(16), None, 0, None

    def reach(self):
        self.urls = self.urls[1:] + self.urls[:1]
        self.socket = connect(self.urls[-1] + "/v1/client", open_timeout=2)
        known = {"session": {"number": self.session, "key": self.key}} if self.session else {"open": {"key": self.key}}
        self.say({"hello": {"version": 2, "token": os.environ.get("RABIA_BANK_TOKEN"), **known}})
        self.session = (welcome := self.hear()["welcome"])["session"]
        return welcome.get("opened", False)  # whether nothing was ever said in it

    def say(self, message):
        self.socket.send(msgpack.packb(message))

    def hear(self, timeout=5):
        return msgpack.unpackb(self.socket.recv(timeout=timeout))

    def ask(self, seconds=20, **what):
        self.last += 1
        message = {"request": self.last, **what}
        if "command" in what:
            message["acknowledged"] = self.last - 1
        deadline, pause, unreadable, said = time.monotonic() + seconds, 0.05, 0, False
        while time.monotonic() < deadline and unreadable < 3:
            try:
                if self.socket is None and self.reach() and said:
                    break  # the session in which it was said is gone
                self.say(message)
                said = True
                answer = self.hear()
                while answer.get("request") != self.last:
                    answer = self.hear()
                error = answer.get("error", {})
                if "ok" not in answer and error.get("outcome") not in ("refused", "unknown"):
                    break  # it can't be read, and would not be better the next time
                if error.get("code") == "session_expired":  # and its key is used up
                    self.key, self.session, self.socket = secrets.token_hex(16), None, None
                if error.get("code") not in ("busy", "no_quorum", "not_yet_applied", "stopping"):
                    return answer  # a code that is not known here is what its outcome says
            except (OSError, WebSocketException, KeyError):
                self.socket = None
            except (ValueError, AttributeError):  # no message of this protocol
                self.socket, unreadable = None, unreadable + 1
            time.sleep(pause)
            pause = min(2 * pause, 2)
        raise TimeoutError(f"outcome unknown: {message}")

if __name__ == "__main__":
    bank, run = Bank(sys.argv[1:]), secrets.token_hex(4)
    alice, bob = f"alice-{run}", f"bob-{run}"
    for account, balance in ((alice, 1000), (bob, 0)):
        bank.ask(command={"create_account": {"account_id": account, "initial_balance": balance}})
    paid = bank.ask(command={"transfer": {"from_account": alice, "to_account": bob, "amount": 300}})
    bank.socket, bank.last = None, bank.last - 1  # as if the answer had been lost
    again = bank.ask(command={"transfer": {"from_account": alice, "to_account": bob, "amount": 300}})
    print("replayed:", again["replayed"], "same:", again["ok"] == paid["ok"])
    poor = bank.ask(command={"withdraw": {"account_id": bob, "amount": 301}})
    print("refused:", poor["error"]["code"], "bob has", bank.ask(query={"get_balance": {"account_id": bob}})["ok"]["balance"])
    bank.ask(subscribe={"account_id": bob, "from": paid["ok"]["transaction"]["transaction_id"]})
    print("seen:", bank.hear()["transaction"]["amount"])
