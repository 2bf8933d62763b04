// Says one line, so that there is something to be seen on the stream. It knows nothing of the extension beside it.
export const handler = async (event) => {
  console.info('hello from the demo function on %s', process.arch, { event });
  return { architecture: process.arch };
};
