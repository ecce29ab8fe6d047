"""Reports: records in, text out. A page, strict JSON and a terminal table, which share one verdict (`summary`)."""
