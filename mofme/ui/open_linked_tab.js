() => {
    // What is no tab here may be a page of the Lab.
    const name = new URLSearchParams(location.search).get("tab")?.toLowerCase().replaceAll(" ", "-");
    if (PAGES.includes(name)) location.replace(name);
    return name ? { selected: name, __type__: "update" } : { __type__: "update" };
}
