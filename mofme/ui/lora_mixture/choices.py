"""The routers that a visitor may train beside one another, with the recipe's router and number of sub-routers."""

ONE, WIDE, TWO, FOUR = "One router", "One wider router", "Mixture of 2", "Mixture of 4"
ARMS: dict[str, tuple[str, int]] = {
    ONE: ("single", 1),
    WIDE: ("wide", 2),
    TWO: ("mixture", 2),
    FOUR: ("mixture", 4),
}
