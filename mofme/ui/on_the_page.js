() => {
    // A picture in the clipboard goes into the upload box wherever on the page the visitor presses Ctrl+V. The address names
    // the open tab, so that a link, a reload or a bookmark comes back to it.
    document.addEventListener("paste", event => {
        const file = [...event.clipboardData.files].find(file => file.type.startsWith("image/"));
        const input = document.querySelector("#photo input[type=file]");
        if (!file || !input) return;
        const files = new DataTransfer();
        files.items.add(file);
        input.files = files.files;
        input.dispatchEvent(new Event("change", { bubbles: true }));
    });
    document.addEventListener("click", event => {
        const tab = event.target.closest("#tabs > .tab-wrapper [role=tab]");
        if (!tab) return;
        const address = new URL(location);
        address.searchParams.set("tab", tab.textContent.trim().toLowerCase());
        history.replaceState(history.state, "", address);
    });
}
