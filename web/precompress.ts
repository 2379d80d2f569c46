import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";
import type { Plugin } from "vite";

const squeeze = promisify(brotliCompress);
const zip = promisify(gzip);
/** Below this a compressed copy saves nothing: everything fits into one packet. */
const WORTH_BYTES = 512;

/** Puts a `.br` and a `.gz` beside every text file that was built: the app sends them as they are. */
export function precompress(): Plugin {
  let folder = "";
  return {
    name: "foretell-precompress",
    apply: "build",
    configResolved(config) {
      folder = join(config.root, config.build.outDir);
      if (config.build.outDir.startsWith("/")) folder = config.build.outDir;
    },
    async closeBundle() {
      const names = await readdir(folder, { recursive: true });
      await Promise.all(
        names
          .filter((name) => /\.(js|css|html|svg|json|webmanifest)$/.test(name))
          .map((name) => both(join(folder, name))),
      );
    },
  };
}

async function both(file: string): Promise<void> {
  const content = await readFile(file);
  if (content.length < WORTH_BYTES) return;
  const quality = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
  const [br, gz] = await Promise.all([squeeze(content, { params: quality }), zip(content, { level: 9 })]);
  await Promise.all([writeFile(`${file}.br`, br), writeFile(`${file}.gz`, gz)]);
}
