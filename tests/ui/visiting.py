"""How a visitor finds their way about the app."""

from playwright.sync_api import Page

from mofme.ui.window import GROUPS


def open_tab(page: Page, name: str) -> None:
    """Click the group that a tab is in, and then the tab."""
    group = next(group for group, tabs in GROUPS.items() if name in tabs)
    page.get_by_role("tab", name=group, exact=True).click()
    page.get_by_role("tab", name=name, exact=True).click()
