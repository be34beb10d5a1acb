"""Blind forced-choice studies: made as one page that any rater can open, played without a server, analysed afterwards.

`config` reads what a study is to be, `design` balances who sees what where, `pictures` makes all pictures alike but for
what they show, `page` puts them into one self-contained file, and `make` writes that and the key that stays behind.
`results` reads what raters sent back and `exclusion` applies the rules that were fixed beforehand. `shares`,
`bootstrap` and `mixed` say how far a preference is certain, `bradley_terry` ranks more than two methods, `agreement`
tells how alike raters judge. `analysis` does all of it and `report` writes it down. `power` plans a study, `observer`
simulates raters, and `population` holds what both assume.
"""
