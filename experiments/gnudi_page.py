def write_page(results, out, page):
    pass
