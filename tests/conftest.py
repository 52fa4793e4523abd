"""For all tests."""

import signal

from hypothesis import HealthCheck, settings

# How long something takes says how busy the machine is, not whether it works.
settings.register_profile(
    "zerofs", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("zerofs")


def pytest_configure():
    """What runs in the background or under nohup gets these ignored, and would hand that down to what tests start."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
