"""Queries of the shape of TPC-H's, at a hundredth of its least size, beside duckdb.

A table has one key here, so whoever holds lines of orders uploads them once by order, by part, by supplier or
by customer, as the query joins them.
"""

import duckdb
import numpy as np
import pandas as pd
import pytest

SEGMENTS = ["AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY"]
PRIORITIES = ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"]
MODES = ["AIR", "FOB", "MAIL", "RAIL", "SHIP"]
NATIONS = [f"NATION {letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXY"]
BRANDS = [f"Brand#{first}{second}" for first in range(1, 6) for second in range(1, 6)]
KINDS = ["ECONOMY", "LARGE", "MEDIUM", "PROMO", "SMALL", "STANDARD"]
DAYS = ("1992-01-01", "1998-12-31")


def made_up(seed=3, orders=15_000, customers=1_500, parts=2_000, suppliers=100):
    """Tables by name; a third of the customers has no order."""
    rng = np.random.default_rng(seed)
    first = np.datetime64(DAYS[0])
    customer = pd.DataFrame(
        {
            "custkey": np.arange(1, customers + 1),
            "nation": rng.choice(NATIONS, customers),
            "segment": rng.choice(SEGMENTS, customers),
            "acctbal": rng.uniform(-999, 9999, customers).round(2),
        }
    )
    order = pd.DataFrame(
        {
            "orderkey": rng.permutation(4 * orders)[:orders] + 1,
            "custkey": rng.choice(np.arange(1, customers + 1)[np.arange(customers) % 3 > 0], orders),
            "orderdate": first + rng.integers(0, 2300, orders).astype("m8[D]"),
            "priority": rng.choice(PRIORITIES, orders),
        }
    )
    line = order[["orderkey", "custkey", "orderdate"]].iloc[
        np.repeat(np.arange(orders), rng.integers(1, 8, orders))
    ]
    line = line.reset_index(drop=True)
    rows = len(line)
    shipped = line["orderdate"].to_numpy("M8[D]") + rng.integers(1, 122, rows).astype("m8[D]")
    line = line.assign(
        partkey=rng.integers(1, parts + 1, rows),
        suppkey=rng.integers(1, suppliers + 1, rows),
        quantity=rng.integers(1, 51, rows),
        price=rng.uniform(900, 95_000, rows).round(2),
        discount=rng.integers(0, 11, rows) / 100,
        tax=rng.integers(0, 9, rows) / 100,
        flag=rng.choice(["A", "N", "R"], rows),
        status=rng.choice(["F", "O"], rows),
        mode=rng.choice(MODES, rows),
        shipdate=shipped,
        commitdate=line["orderdate"].to_numpy("M8[D]") + rng.integers(30, 91, rows).astype("m8[D]"),
        receiptdate=shipped + rng.integers(1, 31, rows).astype("m8[D]"),
    ).drop(columns="orderdate")
    part = pd.DataFrame(
        {
            "partkey": np.arange(1, parts + 1),
            "brand": rng.choice(BRANDS, parts),
            "type": rng.choice(KINDS, parts),
            "size": rng.integers(1, 51, parts),
        }
    )
    supplier = pd.DataFrame({"suppkey": np.arange(1, suppliers + 1), "home": rng.choice(NATIONS, suppliers)})
    return {"customer": customer, "orders": order, "line": line, "part": part, "supplier": supplier}


TABLES = made_up()
CATEGORIES = {
    "nation": NATIONS,
    "home": NATIONS,
    "segment": SEGMENTS,
    "priority": PRIORITIES,
    "flag": ["A", "N", "R"],
    "status": ["F", "O"],
    "mode": MODES,
    "brand": BRANDS,
    "type": KINDS,
}
RANGES = {
    "quantity": (1, 50),
    "price": (0, 100_000),
    "discount": (0, 0.1),
    "tax": (0, 0.1),
    "acctbal": (-1000, 10_000),
    "size": (1, 50),
    **dict.fromkeys(["orderdate", "shipdate", "commitdate", "receiptdate"], DAYS),
}


class Lake:
    """Uploads what a query needs."""

    def __init__(self, opened):
        self.opened = opened

    def table(self, name, key, columns):
        """Some columns of a table, by a key that may repeat."""
        frame = TABLES[name][[key, *columns]]
        return self.opened.upload(
            frame,
            name=f"{name} by {key}",
            key=key,
            owner=name,
            unique=not frame[key].duplicated().any(),
            categories={one: CATEGORIES[one] for one in columns if one in CATEGORIES},
            types={one: "date" for one in columns if one.endswith("date")},
            ranges={one: RANGES[one] for one in columns if one in RANGES},
        )


def told(groups, *figures):
    """Figures `(column, statistic)` of the groups that have rows, in order, with their labels."""
    frame = groups.to_frame()
    frame = frame[frame[figures[0][0], "count"] > 0][list(figures)]
    return frame.reset_index()


def counted(name, *statistics):
    """A column's number of rows, and other figures of it."""
    return [(name, "count"), *((name, one) for one in statistics)]


# -- the queries ---------------------------------------------------------------------------------------------


def pricing_summary(lake):
    """Q1."""
    columns = ["flag", "status", "quantity", "price", "discount", "tax", "shipdate"]
    line = lake.table("line", "orderkey", columns)
    line = line.filter(line["shipdate"] <= "1998-09-02")
    net = line["price"] * (1 - line["discount"])
    line = line.assign(net=net, charge=net * (1 + line["tax"]))
    means = {"quantity": ["count", "sum", "mean"], "price": ["sum", "mean"], "discount": "mean"}
    groups = line.groupby(["flag", "status"]).agg({**means, "net": "sum", "charge": "sum"})
    rest = [("price", "sum"), ("price", "mean"), ("net", "sum"), ("charge", "sum"), ("discount", "mean")]
    return told(groups, *counted("quantity", "sum", "mean"), *rest)


def revenue_by_priority(lake):
    """Q3: of orders before a day, what was sent after it."""
    line = lake.table("line", "orderkey", ["price", "discount", "shipdate"])
    line = line.filter(line["shipdate"] > "1995-03-15")
    line = line.assign(revenue=line["price"] * (1 - line["discount"]))
    by_order = line.groupby("orderkey").to_table(
        {"revenue": ["sum"]}, sizes="hidden", scales={"revenue_sum": -2}
    )
    orders = lake.table("orders", "orderkey", ["orderdate", "priority"])
    joined = orders.filter(orders["orderdate"] < "1995-03-15").join(by_order, on="orderkey", sizes="hidden")
    figures = counted("revenue_sum", "sum", "min", "max")
    return told(joined.groupby("priority").agg({"revenue_sum": ["count", "sum", "min", "max"]}), *figures)


def late_orders(lake):
    """Q4."""
    line = lake.table("line", "orderkey", ["commitdate", "receiptdate"])
    late = line.filter(line["commitdate"] < line["receiptdate"]).assign(
        one=line["receiptdate"] > "1900-01-01"
    )
    late = late.groupby("orderkey").to_table({"one": ["count"]}, sizes="hidden")
    orders = lake.table("orders", "orderkey", ["orderdate", "priority"])
    orders = orders.filter((orders["orderdate"] >= "1993-07-01") & (orders["orderdate"] < "1993-10-01"))
    found = orders.join(late, on="orderkey", how="semi", sizes="hidden").assign(
        one=orders["orderdate"] > "1900-01-01"
    )
    return told(found.groupby("priority").agg({"one": "count"}), *counted("one"))


def forecast(lake):
    """Q6."""
    line = lake.table("line", "orderkey", ["shipdate", "discount", "quantity", "price"])
    line = line.filter(line["shipdate"].between("1994-01-01", "1994-12-31"))
    line = line.filter(line["discount"].between(0.05, 0.07) & (line["quantity"] < 24))
    line = line.assign(saved=line["price"] * line["discount"], one=line["quantity"] < 24)
    return told(
        line.groupby("one", categories={"one": [1]}).agg({"saved": ["count", "sum"]}),
        *counted("saved", "sum"),
    )


def volume_by_nation_and_year(lake):
    """Q7, of the suppliers' nations."""
    line = lake.table("line", "suppkey", ["shipdate", "price", "discount"])
    line = line.filter(line["shipdate"].between("1995-01-01", "1996-12-31"))
    line = line.assign(year=line["shipdate"].dt.year, volume=line["price"] * (1 - line["discount"]))
    supplier = lake.table("supplier", "suppkey", ["home"])
    joined = line.join(supplier, on="suppkey", validate="m:1", sizes="hidden")
    groups = joined.groupby(["home", "year"], categories={"year": [1995, 1996]}).agg(
        {"volume": ["count", "sum"]}
    )
    return told(groups, *counted("volume", "sum"))


def returned(lake):
    """Q10, by nation."""
    line = lake.table("line", "custkey", ["flag", "price", "discount"])
    line = line.filter(line["flag"] == "R").assign(revenue=line["price"] * (1 - line["discount"]))
    customer = lake.table("customer", "custkey", ["nation", "acctbal"])
    joined = line.join(customer, on="custkey", validate="m:1", sizes="hidden")
    groups = joined.groupby("nation").agg({"revenue": ["count", "sum"], "acctbal": ["mean", "max"]})
    return told(groups, *counted("revenue", "sum"), ("acctbal", "mean"), ("acctbal", "max"))


def shipping_modes(lake):
    """Q12."""
    line = lake.table("line", "orderkey", ["mode", "commitdate", "receiptdate", "shipdate"])
    line = line.filter(line["mode"].isin(["MAIL", "SHIP"]) & (line["commitdate"] < line["receiptdate"]))
    line = line.filter(
        (line["shipdate"] < line["commitdate"]) & line["receiptdate"].between("1994-01-01", "1994-12-31")
    )
    orders = lake.table("orders", "orderkey", ["priority"])
    joined = line.join(orders, on="orderkey", validate="m:1", sizes="hidden")
    high = joined["priority"].isin(["1-URGENT", "2-HIGH"])
    groups = joined.assign(high=high).groupby("mode").agg({"high": ["count", "sum"]})
    return told(groups, *counted("high", "sum"))


def orders_of_customers(lake):
    """Q13: how many customers have how many orders, none among them."""
    orders = lake.table("orders", "custkey", ["priority", "orderdate"])
    orders = orders.filter(~orders["priority"].isin(["4-NOT SPECIFIED"]))
    by_customer = orders.groupby("custkey").to_table({"orderdate": ["count"]}, sizes="exact")
    customer = lake.table("customer", "custkey", ["acctbal"])
    joined = customer.join(by_customer, on="custkey", how="left")
    joined = joined.assign(orders=joined["orderdate_count"].fillna(0))
    groups = joined.groupby("orders", categories={"orders": list(range(60))}).agg({"acctbal": "count"})
    return told(groups, *counted("acctbal"))


def promotions(lake):
    """Q14: the parts of a sum by whether it was for a part of a kind."""
    line = lake.table("line", "partkey", ["shipdate", "price", "discount"])
    line = line.filter(line["shipdate"].between("1995-09-01", "1995-09-30"))
    line = line.assign(revenue=line["price"] * (1 - line["discount"]))
    joined = line.join(lake.table("part", "partkey", ["type"]), on="partkey", validate="m:1", sizes="hidden")
    joined = joined.assign(promo=joined["type"] == "PROMO")
    return told(joined.groupby("promo").agg({"revenue": ["count", "sum"]}), *counted("revenue", "sum"))


def small_quantities(lake):
    """Q17: of lines with less than half of what is usual for their part."""
    line = lake.table("line", "partkey", ["quantity", "price"])
    usual = line.groupby("partkey").to_table({"quantity": ["mean"]}, sizes="exact")
    joined = line.join(usual, on="partkey", validate="m:1", sizes="hidden")
    joined = joined.assign(small=joined["quantity"] < joined["quantity_mean"] * 0.5)
    return told(joined.groupby("small").agg({"price": ["count", "sum"]}), *counted("price", "sum"))


def discounted(lake):
    """Q19: a choice among conditions of two tables."""
    line = lake.table("line", "partkey", ["quantity", "price", "discount", "mode"])
    line = line.filter(line["mode"].isin(["AIR", "RAIL"])).assign(
        revenue=line["price"] * (1 - line["discount"])
    )
    part = lake.table("part", "partkey", ["brand", "size"])
    joined = line.join(part, on="partkey", validate="m:1", sizes="hidden")
    brand, quantity, size = joined["brand"], joined["quantity"], joined["size"]
    some = (brand == "Brand#12") & quantity.between(1, 11) & (size <= 5)
    other = brand.isin(["Brand#23", "Brand#34"]) & quantity.between(10, 30) & (size > 25)
    groups = joined.assign(one=some | other).groupby("one").agg({"revenue": ["count", "sum"]})
    return told(groups, *counted("revenue", "sum"))


def customers_without_orders(lake):
    """Q22."""
    orders = lake.table("orders", "custkey", ["priority"])
    customer = lake.table("customer", "custkey", ["nation", "acctbal"])
    with_orders = orders.groupby("custkey").to_table({"priority": ["count"]}, sizes="exact")
    customer = customer.filter(customer["acctbal"] > 5000)
    found = customer.join(with_orders, on="custkey", how="anti", sizes="hidden")
    return told(found.groupby("nation").agg({"acctbal": ["count", "sum"]}), *counted("acctbal", "sum"))


QUERIES = {
    pricing_summary: """
        SELECT flag, status, count(*), sum(quantity), avg(quantity), sum(price), avg(price),
            sum(price * (1 - discount)), sum(price * (1 - discount) * (1 + tax)), avg(discount)
        FROM line WHERE shipdate <= DATE '1998-09-02' GROUP BY flag, status ORDER BY flag, status
    """,
    revenue_by_priority: """
        SELECT priority, count(*), sum(revenue), min(revenue), max(revenue) FROM (
            SELECT o.orderkey, any_value(priority) AS priority, sum(price * (1 - discount)) AS revenue
            FROM orders o JOIN line l ON l.orderkey = o.orderkey
            WHERE o.orderdate < DATE '1995-03-15' AND shipdate > DATE '1995-03-15' GROUP BY o.orderkey
        ) GROUP BY priority ORDER BY priority
    """,
    late_orders: """
        SELECT priority, count(*) FROM orders o
        WHERE orderdate >= DATE '1993-07-01' AND orderdate < DATE '1993-10-01' AND EXISTS (
            SELECT * FROM line l WHERE l.orderkey = o.orderkey AND commitdate < receiptdate
        ) GROUP BY priority ORDER BY priority
    """,
    forecast: """
        SELECT 1, count(*), sum(price * discount) FROM line
        WHERE shipdate BETWEEN DATE '1994-01-01' AND DATE '1994-12-31'
            AND round(discount, 2) BETWEEN 0.05 AND 0.07 AND quantity < 24
    """,
    volume_by_nation_and_year: """
        SELECT home, year(shipdate) AS sent, count(*), sum(price * (1 - discount))
        FROM line JOIN supplier USING (suppkey) WHERE sent BETWEEN 1995 AND 1996
        GROUP BY home, sent ORDER BY home, sent
    """,
    returned: """
        SELECT nation, count(*), sum(price * (1 - discount)), avg(acctbal), max(acctbal)
        FROM line JOIN customer USING (custkey) WHERE flag = 'R' GROUP BY nation ORDER BY nation
    """,
    shipping_modes: """
        SELECT mode, count(*), sum(CAST(priority IN ('1-URGENT', '2-HIGH') AS INTEGER))
        FROM line JOIN orders USING (orderkey)
        WHERE mode IN ('MAIL', 'SHIP') AND commitdate < receiptdate AND shipdate < commitdate
            AND receiptdate BETWEEN DATE '1994-01-01' AND DATE '1994-12-31'
        GROUP BY mode ORDER BY mode
    """,
    orders_of_customers: """
        SELECT orders, count(*) FROM (
            SELECT c.custkey, count(orderkey) AS orders FROM customer c
            LEFT JOIN orders o ON o.custkey = c.custkey AND priority <> '4-NOT SPECIFIED' GROUP BY c.custkey
        ) GROUP BY orders ORDER BY orders
    """,
    promotions: """
        SELECT CAST(type = 'PROMO' AS INTEGER) AS promo, count(*), sum(price * (1 - discount))
        FROM line JOIN part USING (partkey)
        WHERE shipdate BETWEEN DATE '1995-09-01' AND DATE '1995-09-30' GROUP BY promo ORDER BY promo
    """,
    small_quantities: """
        SELECT CAST(quantity < 0.5 * usual AS INTEGER) AS small, count(*), sum(price)
        FROM (SELECT *, avg(quantity) OVER (PARTITION BY partkey) AS usual FROM line)
        GROUP BY small ORDER BY small
    """,
    discounted: """
        SELECT CAST((brand = 'Brand#12' AND quantity BETWEEN 1 AND 11 AND size <= 5) OR (
                brand IN ('Brand#23', 'Brand#34') AND quantity BETWEEN 10 AND 30 AND size > 25
            ) AS INTEGER) AS one, count(*), sum(price * (1 - discount))
        FROM line JOIN part USING (partkey) WHERE mode IN ('AIR', 'RAIL') GROUP BY one ORDER BY one
    """,
    customers_without_orders: """
        SELECT nation, count(*), sum(acctbal) FROM customer c
        WHERE acctbal > 5000 AND NOT EXISTS (SELECT * FROM orders o WHERE o.custkey = c.custkey)
        GROUP BY nation ORDER BY nation
    """,
}


@pytest.fixture(scope="module")
def sql():
    connection = duckdb.connect()
    for name, frame in TABLES.items():
        connection.register(name, frame)
    return connection


@pytest.mark.cases
@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.__name__)
def test_as_sql_has_it(lake, sql, query):
    found, wanted = query(Lake(lake)), sql.sql(QUERIES[query]).df()
    found = found.to_numpy().T
    assert found.shape == wanted.shape[::-1]
    for name, mine in zip(wanted.columns, found, strict=True):
        theirs = wanted[name].to_numpy()
        if name.startswith(("min", "max")):  # of sums of up to seven numbers, in units of 4
            np.testing.assert_allclose(mine.astype(float), theirs, atol=16, err_msg=name)
        elif theirs.dtype.kind == "f":
            np.testing.assert_allclose(mine.astype(float), theirs, rtol=2e-5, err_msg=name)
        else:
            assert (mine == theirs).all(), name
