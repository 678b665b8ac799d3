"""How a visitor finds their way about the app."""

from playwright.sync_api import Page

from mofme.ui.window import TABS, address_of


def open_tab(page: Page, name: str) -> None:
    """Click a tab; or that of the Lab, and the card of an experiment."""
    page.get_by_role("tab", name=name if name in TABS else "Lab", exact=True).click()
    if name not in TABS:
        page.locator(f"a.card[href='{address_of(name)}']").click()
