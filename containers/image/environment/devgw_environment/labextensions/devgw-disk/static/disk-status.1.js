// JupyterLab's status bar shows how full the environment's disk is, and warns at 80 and at 95 %.
//
// This is a container of webpack's module federation, written by hand: JupyterLab calls `init` with the modules that
// it shares, then `get` (jupyterlab/staging/bootstrap.js, index.js). So nothing is built when an image is.
"use strict";
(() => {
  const NAME = "devgw-disk";
  const MILLISECONDS = 10000;
  const COLOURS = { 80: "#7a4b00", 95: "#a4000f" }; // with white on it each reads well in every theme
  let shared;

  // Return a module that JupyterLab shares: the copy that is in use, for its tokens are known by identity.
  async function take(name) {
    const copies = Object.values(shared[name] ?? {});
    const copy = copies.find((one) => one.loaded) ?? copies.find((one) => one.from.startsWith("@jupyterlab/application")) ?? copies[0];
    return (await copy.get())();
  }

  function sized(bytes) {
    const [unit, power] = bytes < 2 ** 30 ? ["MiB", 20] : bytes < 2 ** 40 ? ["GiB", 30] : ["TiB", 40];
    return `${(bytes / 2 ** power).toFixed(1).replace(/\.0$/, "")} ${unit}`;
  }

  function plugin({ IStatusBar }, { Widget }, { ServerConnection }, { Notification }) {
    return {
      id: `${NAME}:status`,
      description: "Shows how full the environment's disk is.",
      autoStart: true,
      requires: [IStatusBar],
      activate: (app, statusBar) => {
        const item = new Widget();
        item.addClass("devgw-disk");
        item.hide();
        statusBar.registerStatusItem(`${NAME}:status`, { item, align: "right", rank: 90 });
        let level = 0;

        function show(disk) {
          if (disk.size_bytes === undefined) {
            item.hide();
            return;
          }
          item.node.textContent = `Disk: ${sized(disk.used_bytes)} of ${sized(disk.size_bytes)} (${disk.percent} %)`;
          item.node.title = disk.note || "how full your disk is";
          item.node.dataset.level = disk.level;
          Object.assign(item.node.style, {
            padding: "0 6px",
            lineHeight: "24px",
            color: disk.level ? "white" : "",
            background: COLOURS[disk.level] ?? "",
          });
          item.show();
          if (disk.level > level) {
            Notification.emit(disk.note, disk.level >= 95 ? "error" : "warning", { autoClose: false });
          }
          level = disk.level;
        }

        async function look() {
          const settings = app.serviceManager.serverSettings;
          try {
            const answer = await ServerConnection.makeRequest(`${settings.baseUrl}devgw/disk`, {}, settings);
            if (answer.ok) {
              show(await answer.json());
            }
          } catch {
            // the server is away; JupyterLab itself says so
          }
        }

        setInterval(() => document.hidden || look(), MILLISECONDS);
        document.addEventListener("visibilitychange", () => document.hidden || look());
        void app.restored.then(look);
      },
    };
  }

  (window._JUPYTERLAB ??= {})[NAME] = {
    init: (scope) => {
      shared = scope;
    },
    get: async (module) => {
      if (module !== "./extension") {
        throw new Error(`${NAME} has no ${module}`);
      }
      const names = ["@jupyterlab/statusbar", "@lumino/widgets", "@jupyterlab/services", "@jupyterlab/apputils"];
      const made = plugin(...(await Promise.all(names.map(take))));
      return () => ({ __esModule: true, default: made });
    },
  };
})();
