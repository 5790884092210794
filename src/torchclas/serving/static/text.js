// All that the page says, in both languages. `{0}`-like places are filled in by name.

const TEXT = {
  en: {
    "skip": "Skip to content",
    "tab.try": "Try it",
    "tab.explore": "Explore",
    "sections": "Sections",
    "language": "中文",
    "theme.dark": "Dark",
    "theme.light": "Light",
    "docs": "API",

    "try.title": "What is in the picture?",
    "try.lead": "Pictures go to this service and nowhere else; it keeps none of them.",
    "try.drop": "Drop pictures here, or paste one",
    "try.choose": "Choose pictures",
    "try.folder": "Choose a folder",
    "try.camera": "Camera",
    "try.models": "Models",
    "try.models.none": "No model is open. Start the service with one: torchclas serve NAME",
    "try.models.pick": "Choose a model first.",
    "try.empty": "There is no picture among what was given.",
    "try.token.title": "This service asks for a token",
    "try.token": "Token",
    "try.token.use": "Continue",
    "try.token.wrong": "That token is not the right one.",
    "try.again": "Try again",
    "try.working": "Classifying {name} …",
    "try.done": "{name}: {label}, {score}",
    "try.failed": "{name} cannot be classified",
    "try.seen.size": "What the network saw: {size}",
    "try.where.hint": "Choose a class to see what in the picture speaks for it.",
    "try.where.shown": "What speaks for {label}, from blue to red. The network does not see what is dark.",
    "try.nopreview": "This browser cannot show the picture; the service may still read it.",
    "try.none": "No class reaches its threshold.",
    "try.time": "{ms} ms",
    "try.total": "{ms} ms with the way there and back",
    "try.back": "All pictures",
    "try.pasted": "pasted picture",
    "try.photo": "photo",

    "camera.title": "Camera",
    "camera.take": "Take the picture",
    "camera.close": "Close",
    "camera.refused": "The camera cannot be used: {why}",

    "sheet.title": "{count} pictures",
    "sheet.progress": "{done} of {count} done",
    "sheet.finished": "{ok} classified, {errors} unreadable",
    "sheet.meter": "Pictures classified",
    "sheet.filter": "Filter by file or class",
    "sheet.show": "Show",
    "sheet.all": "all",
    "sheet.errors": "unreadable ones",
    "sheet.unsure": "unsure ones (below 50 %)",
    "sheet.differ": "where models differ",
    "sheet.csv": "Save as CSV",
    "sheet.stop": "Stop",
    "sheet.none": "No picture matches.",
    "sheet.open": "{name}: show details",
    "sheet.waiting": "waiting",
    "sheet.more": "Show more",

    "kind.bad_image": "This is no picture that can be read",
    "kind.too_large": "The picture is too large",
    "kind.unsupported": "This kind of file is not taken",
    "kind.overloaded": "The service has too much to do",
    "kind.deadline": "The answer took too long",
    "kind.unauthorized": "The token is missing or wrong",
    "kind.unreachable": "The service cannot be reached",
    "kind.other": "The service gave no answer",

    "zoo.title": "The zoo",
    "zoo.lead": "{models} models in {series} series. Figures are those that were published.",
    "zoo.lead.here": "{models} models in {series} series. Figures are those that were published, and what was measured on this machine: {cpu}.",
    "zoo.search": "Search",
    "zoo.search.hint": "Name or series",
    "zoo.kind": "Kind",
    "zoo.series": "Series",
    "zoo.any": "all",
    "zoo.min": "Top-1 at least, %",
    "zoo.max": "At most, {unit}",
    "zoo.reset": "Clear filters",
    "zoo.count": "{shown} of {all} models",
    "zoo.drawn": "{drawn} of them have both figures of the chart.",
    "zoo.none": "No model meets all of this.",
    "zoo.across": "Accuracy against",
    "zoo.table": "Models",
    "zoo.cost": "Cost",
    "zoo.device": "Latency: {device}",
    "zoo.here": "Latency on this machine: {cpu}",
    "kind.server": "server",
    "kind.mobile": "mobile",
    "kind.transformer": "transformer",
    "kind.others": "other",

    "chart.label": "Top-1 accuracy against {across}. Arrow keys go from model to model, Enter opens one.",
    "chart.y": "Top-1, %",
    "chart.in": "Zoom in",
    "chart.out": "Zoom out",
    "chart.reset": "Whole chart",
    "chart.front": "Pareto front: nothing here is both faster and more accurate",
    "chart.front.cost": "Pareto front: nothing here is both smaller and more accurate",
    "chart.lines": "Other models, a line per series",
    "chart.hint": "Drag to zoom in; Ctrl and wheel do as well.",
    "chart.none": "No model of this choice has both figures.",
    "chart.onfront": "on the Pareto front",

    "column.name": "Model",
    "column.series": "Series",
    "column.top1": "Top-1, %",
    "column.top5": "Top-5, %",
    "column.params_m": "Params, M",
    "column.gflops": "GFLOPs",
    "column.v100": "V100, ms",
    "column.sd855": "SD 855, ms",
    "column.xeon6148": "Xeon, ms",
    "column.here": "Here, ms",
    "column.size": "Input",

    "card.close": "Close",
    "card.arch": "Architecture",
    "card.latency": "Latency",
    "card.input": "Input",
    "card.crop": "{size}, centre crop of the short side at {short}; {interpolation}",
    "card.other": "{size}, {fit}; {interpolation}",
    "card.classes": "Classes",
    "card.papers": "Paper",
    "card.recipe": "Recipe",
    "card.norecipe": "none published",
    "card.noweights": "No weights were published for it.",
    "card.note": "Note",
    "card.predict": "Classify pictures",
    "card.python": "In Python",
    "card.serve": "Serve it",
    "card.train": "Fine-tune it",
    "card.quantize": "Make it from its float model",
    "card.copy": "Copy",
    "card.copied": "Copied",
    "card.here": "This machine",
  },
  zh: {
    "skip": "跳到正文",
    "tab.try": "试一试",
    "tab.explore": "模型库",
    "sections": "页面导航",
    "language": "English",
    "theme.dark": "深色",
    "theme.light": "浅色",
    "docs": "API",

    "try.title": "图里是什么？",
    "try.lead": "图片只发送到本服务，不会发往别处，也不会保存。",
    "try.drop": "把图片拖到这里，或直接粘贴",
    "try.choose": "选择图片",
    "try.folder": "选择文件夹",
    "try.camera": "拍照",
    "try.models": "模型",
    "try.models.none": "没有已加载的模型。启动服务时请指定模型：torchclas serve NAME",
    "try.models.pick": "请先选择一个模型。",
    "try.empty": "给出的文件中没有图片。",
    "try.token.title": "访问本服务需要令牌",
    "try.token": "令牌",
    "try.token.use": "继续",
    "try.token.wrong": "令牌不正确。",
    "try.again": "重试",
    "try.working": "正在识别 {name}……",
    "try.done": "{name}：{label}，{score}",
    "try.failed": "{name} 无法识别",
    "try.seen.size": "网络看到的图像：{size}",
    "try.where.hint": "点击类别，可查看图中支持该类别的区域。",
    "try.where.shown": "支持“{label}”的区域，由蓝到红逐渐增强；变暗的部分网络看不到。",
    "try.nopreview": "浏览器无法显示这张图片，但服务可能可以读取。",
    "try.none": "没有类别达到阈值。",
    "try.time": "{ms} 毫秒",
    "try.total": "含往返共 {ms} 毫秒",
    "try.back": "全部图片",
    "try.pasted": "粘贴的图片",
    "try.photo": "照片",

    "camera.title": "拍照",
    "camera.take": "拍摄",
    "camera.close": "关闭",
    "camera.refused": "无法使用摄像头：{why}",

    "sheet.title": "{count} 张图片",
    "sheet.progress": "已完成 {done} / {count}",
    "sheet.finished": "已识别 {ok} 张，{errors} 张无法读取",
    "sheet.meter": "识别进度",
    "sheet.filter": "按文件名或类别筛选",
    "sheet.show": "显示",
    "sheet.all": "全部",
    "sheet.errors": "无法读取的",
    "sheet.unsure": "不确定的（低于 50 %）",
    "sheet.differ": "各模型结果不同的",
    "sheet.csv": "保存为 CSV",
    "sheet.stop": "停止",
    "sheet.none": "没有符合条件的图片。",
    "sheet.open": "{name}：查看详情",
    "sheet.waiting": "等待中",
    "sheet.more": "显示更多",

    "kind.bad_image": "无法作为图片读取",
    "kind.too_large": "图片太大",
    "kind.unsupported": "不支持这种文件",
    "kind.overloaded": "服务正忙",
    "kind.deadline": "等待回答超时",
    "kind.unauthorized": "缺少令牌或令牌不正确",
    "kind.unreachable": "无法连接到服务",
    "kind.other": "服务没有给出结果",

    "zoo.title": "模型库",
    "zoo.lead": "{series} 个系列，共 {models} 个模型。数据均为官方公布值。",
    "zoo.lead.here": "{series} 个系列，共 {models} 个模型。数据为官方公布值，以及在本机上的实测值：{cpu}。",
    "zoo.search": "搜索",
    "zoo.search.hint": "名称或系列",
    "zoo.kind": "类型",
    "zoo.series": "系列",
    "zoo.any": "全部",
    "zoo.min": "Top-1 不低于（%）",
    "zoo.max": "不超过（{unit}）",
    "zoo.reset": "清除筛选",
    "zoo.count": "{shown} / {all} 个模型",
    "zoo.drawn": "其中 {drawn} 个有图中所需的两项数据。",
    "zoo.none": "没有模型满足全部条件。",
    "zoo.across": "精度对比",
    "zoo.table": "模型列表",
    "zoo.cost": "计算量与大小",
    "zoo.device": "延迟：{device}",
    "zoo.here": "本机延迟：{cpu}",
    "kind.server": "服务器端",
    "kind.mobile": "移动端",
    "kind.transformer": "Transformer",
    "kind.others": "其他",

    "chart.label": "Top-1 精度与{across}的关系。用方向键在模型间移动，按回车键打开。",
    "chart.y": "Top-1（%）",
    "chart.in": "放大",
    "chart.out": "缩小",
    "chart.reset": "显示全图",
    "chart.front": "帕累托前沿：没有其他模型比它们更快且更准",
    "chart.front.cost": "帕累托前沿：没有其他模型比它们更小且更准",
    "chart.lines": "其他模型，每个系列一条线",
    "chart.hint": "拖动框选可放大，也可以按住 Ctrl 滚动滚轮。",
    "chart.none": "所选模型都缺少其中一项数据。",
    "chart.onfront": "位于帕累托前沿",

    "column.name": "模型",
    "column.series": "系列",
    "column.top1": "Top-1（%）",
    "column.top5": "Top-5（%）",
    "column.params_m": "参数（M）",
    "column.gflops": "GFLOPs",
    "column.v100": "V100（ms）",
    "column.sd855": "骁龙 855（ms）",
    "column.xeon6148": "Xeon（ms）",
    "column.here": "本机（ms）",
    "column.size": "输入",

    "card.close": "关闭",
    "card.arch": "网络结构",
    "card.latency": "延迟",
    "card.input": "输入",
    "card.crop": "{size}，短边缩放到 {short} 后居中裁剪；{interpolation}",
    "card.other": "{size}，{fit}；{interpolation}",
    "card.classes": "类别数",
    "card.papers": "论文",
    "card.recipe": "训练配方",
    "card.norecipe": "未公布",
    "card.noweights": "没有公布它的权重。",
    "card.note": "说明",
    "card.predict": "识别图片",
    "card.python": "在 Python 中",
    "card.serve": "作为服务运行",
    "card.train": "微调",
    "card.quantize": "由浮点模型生成",
    "card.copy": "复制",
    "card.copied": "已复制",
    "card.here": "本机",
  },
};

let current = remembered("language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
const followers = [];

/** What was chosen in an earlier visit; null where nothing was, or where the browser keeps nothing. */
export function remembered(name) {
  try {
    return localStorage.getItem(`torchclas.${name}`);
  } catch {
    return null;
  }
}

/** Keep a choice for the next visit. */
export function remember(name, value) {
  try {
    localStorage.setItem(`torchclas.${name}`, value);
  } catch {
    // A page opened from a file may have no storage.
  }
}

export const language = () => current;

/** The text of a key in the language of the page. */
export function t(key, values = {}) {
  const text = TEXT[current][key];
  if (text === undefined) throw new Error(`no text ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => said(values[name]));
}

/** Say some of it otherwise, or more: texts for each language, as above. */
export function reword(words) {
  for (const [name, texts] of Object.entries(words)) Object.assign(TEXT[name], texts);
}

/** A score for people. */
export const percent = (score) => `${(score * 100).toFixed(score < 0.0995 ? 2 : 1)} %`;

/** A value in the language of the page: names have one for each. */
function said(value) {
  if (typeof value === "number") return value.toLocaleString(current);
  return value && typeof value === "object" ? (value[current] ?? value.en) : String(value);
}

/** Fill in the texts of an element and all below it. */
export function translate(root) {
  const nodes = root.querySelectorAll("[data-t], [data-names], [data-label], [data-hint], [data-placeholder]");
  for (const node of [root, ...nodes]) {
    const { t: key, values, names, label, hint, placeholder } = node.dataset ?? {};
    if (key) node.textContent = t(key, values && JSON.parse(values));
    if (names) node.textContent = said(JSON.parse(names));
    if (label) node.setAttribute("aria-label", label.startsWith("[") ? t(...JSON.parse(label)) : t(label));
    if (hint) node.setAttribute("title", t(hint));
    if (placeholder) node.setAttribute("placeholder", t(placeholder));
  }
}

/** Change the language of the page. */
export function setLanguage(name) {
  current = name;
  document.documentElement.lang = name === "zh" ? "zh-CN" : "en";
  translate(document.body);
  for (const follow of followers) follow();
}

/** Call `follow` whenever the language changes, for what is more than text. */
export const whenLanguageChanges = (follow) => followers.push(follow);
