# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# /// script
# requires-python = ">=3.11"
# dependencies = ["selenium==4.51.0"]
# ///
"""Use the page of a server of a classifier in Chromium, as a person does: ``browser.py URL COLUMN [SCREENSHOT]``.

COLUMN is one of the model's that takes a number. The browser reaches nothing but 127.0.0.1.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

SECONDS = 15


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        raise SystemExit("expected chromium and chromedriver, of Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",  # It has none as root, as which tests run in containers.
        "--disable-dev-shm-usage",
        "--window-size=1240,1040",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def wait(browser: webdriver.Chrome, element: str) -> WebElement:
    """The element once it can be seen."""

    def seen(_browser: Any) -> WebElement | None:
        found = browser.find_elements(By.ID, element)
        return found[0] if found and found[0].is_displayed() else None

    return WebDriverWait(browser, SECONDS).until(seen, f"{element} is not on the page")


def use(browser: webdriver.Chrome, url: str, column: str, screenshot: str | None) -> None:
    browser.get(f"{url}/docs")
    wait(browser, "send").click()
    label = wait(browser, "prediction").text
    answer = json.loads(browser.find_element(By.CSS_SELECTOR, "#answer pre").text)
    (prediction,) = answer["predictions"]
    assert label == (prediction if isinstance(prediction, str) else json.dumps(prediction)), (answer, label)
    assert len(browser.find_elements(By.TAG_NAME, "meter")) == len(answer["probabilities"][0])
    if screenshot:
        browser.save_screenshot(screenshot)

    fields = browser.find_elements(By.CSS_SELECTOR, "#fields input, #fields select")
    names = [field.get_attribute("data-column") for field in fields]
    # As a screen reader has them: what a label says, and what a hint adds.
    assert [field.accessible_name for field in fields] == names, names
    field = fields[names.index(column)]
    field.clear()
    field.send_keys("many")
    browser.find_element(By.ID, "send").click()
    assert f"column '{column}': expected a number" in wait(browser, "problem").text
    assert browser.switch_to.active_element == field
    assert field.get_attribute("aria-invalid") == "true"

    before = browser.find_element(By.ID, "body").get_attribute("value")
    browser.find_element(By.ID, "next").click()
    browser.find_element(By.CSS_SELECTOR, "#raw summary").click()
    body = wait(browser, "body").get_attribute("value")
    assert body is not None
    assert body != before
    assert f"curl {url}/predict" in browser.find_element(By.ID, "curl").text
    browser.find_element(By.CSS_SELECTOR, "#send-raw button").click()
    assert wait(browser, "prediction").text

    asked = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert {f"{url}/openapi.json", f"{url}/predict"} == set(asked), asked
    refused = [entry for entry in browser.get_log("browser") if "422" not in entry["message"]]
    assert not refused, refused


def main(url: str, column: str, screenshot: str | None = None) -> None:
    with chromium() as browser:
        use(browser, url, column, screenshot)
    print("as asked")


if __name__ == "__main__":
    main(*sys.argv[1:])
