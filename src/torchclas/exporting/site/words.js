// What the page of a site says otherwise than that of the service, and beside it.

export const WORDS = {
  en: {
    "try.lead": "Pictures stay on this device: the model runs in this browser.",
    "try.nopreview": "This browser cannot show the picture.",
    "try.total": "{ms} ms with reading and resizing",
    "open.title": "Opening {name}",
    "open.runtime": "Loading what runs it: {done} of {total} MB",
    "open.model": "Loading the model: {done} of {total} MB",
    "open.checking": "Comparing its first answer with the original's …",
    "open.once": "This is needed once. Afterwards the page works without a network, too.",
    "open.online": "The page works while there is a network: this browser keeps nothing of it here.",
    "open.failed": "The model cannot be opened",
    "open.differs": "The model computes something else here than it should",
    "kind.alpha": "The picture is too large for one with transparency",
    "kind.failed": "The model failed",
  },
  zh: {
    "try.lead": "图片不会离开本设备：模型就在此浏览器中运行。",
    "try.nopreview": "浏览器无法显示这张图片。",
    "try.total": "含读取和缩放共 {ms} 毫秒",
    "open.title": "正在打开 {name}",
    "open.runtime": "正在加载运行库：{done} / {total} MB",
    "open.model": "正在加载模型：{done} / {total} MB",
    "open.checking": "正在与原模型的结果核对……",
    "open.once": "只需加载一次，之后没有网络也能使用。",
    "open.online": "此浏览器在这里不保存网页内容，使用时需要网络。",
    "open.failed": "模型无法打开",
    "open.differs": "模型在这里的计算结果与原模型不符",
    "kind.alpha": "带透明度的图片不能这么大",
    "kind.failed": "模型运行失败",
  },
};
