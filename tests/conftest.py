"""For all tests."""

import signal


def pytest_configure():
    """What runs in the background or under nohup gets these ignored, and would hand that down to what tests start."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
